"""How the rows of a running sweep stand: seeds done, the metric so far, failures."""

import math
from pathlib import Path
from typing import Any

from mmexp.files import DONE, FAILED, KILLED, NOT_SELECTED, read_json
from mmexp.sweeping.engine.ledger import Ledger


class Standing:
    """Reads each finished trial's result once.

    Args:
        ledger: its node ``sweep`` names the metric.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.metric = str(ledger.head.sweep.get("metric") or "")
        self._values: dict[str, float | None] = {}

    def value(self, entry: dict[str, Any]) -> float | None:
        """The metric of a cell that is done; None where its result lacks it."""
        if entry["key"] not in self._values:
            result = read_json(Path(entry["folder"]) / "result.json") or {}
            found = (result.get("metrics") or {}).get(self.metric)
            self._values[entry["key"]] = float(found) if isinstance(found, int | float) else None
        return self._values[entry["key"]]

    def text(self, key: str) -> str:
        """``metric 12.34`` of a trial that is done; empty where there is none."""
        entry = next((entry for entry in self.ledger.trials if entry["key"] == key and entry["status"] == DONE), None)
        value = self.value(entry) if entry else None
        return "" if value is None else f"{self.metric} {value:.2f}"

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(row, seeds done of all, mean so far, failures) of each row that was asked for."""
        cells: dict[str, list[dict[str, Any]]] = {}
        for entry in self.ledger.trials:
            if entry["status"] != NOT_SELECTED:
                cells.setdefault(entry["label"], []).append(entry)
        return [self._row(label, entries) for label, entries in cells.items()]

    def _row(self, label: str, entries: list[dict[str, Any]]) -> tuple[str, str, str, str]:
        done = [entry for entry in entries if entry["status"] == DONE]
        values = [value for value in map(self.value, done) if value is not None]
        mean = f"{math.fsum(values) / len(values):.2f}" if values else "-"
        failed = sum(entry["status"] in (FAILED, KILLED) for entry in entries)
        return label, f"{len(done)}/{len(entries)}", mean, f"{failed} failed" if failed else ""
