"""What a running sweep shows: a live table on a terminal, a line per event elsewhere."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mmexp.files import DONE, FAILED, KILLED, NOT_SELECTED, RESULT_FILE, read_json
from mmexp.sweeping.engine.ledger import Ledger

Running = tuple[str, tuple[int, int] | None, float]
"""Label, (step, total) where known, seconds since its start."""


class Display:
    """Shows events and running work; open while the sweep runs.

    Args:
        console: a terminal gets a live table.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live = Live(console=console, refresh_per_second=2, transient=True) if console.is_terminal else None

    @property
    def is_live(self) -> bool:
        """Whether there is a table to be kept up to date."""
        return self._live is not None

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live:
            self._live.stop()

    def event(self, text: str) -> None:
        """One line, with the time."""
        self.console.print(Text(f"{time.strftime('%H:%M:%S')} {text}"), soft_wrap=True)

    def show(
        self,
        running: Sequence[Running],
        stages_done: int,
        stages: int,
        trials_done: int,
        trials: int,
        failed: int,
        metric: str = "",
        rows: Sequence[tuple[str, str, str, str]] = (),
    ) -> None:
        """The state of affairs; nothing where there is no terminal. ``rows`` as ``RowScores.rows`` has them."""
        if self._live is None:
            return
        table = Table.grid(padding=(0, 2))
        for label, progress, seconds in running:
            step, total = progress or (0, 1)
            left = _clock(seconds * (total - step) / step) if progress and step else "-"
            bar = ProgressBar(total=total, completed=step, width=24)
            table.add_row(Text(label), bar, f"{100 * step // total}%", _clock(seconds), f"left {left}")
        failures = f", {failed} failed" if failed else ""
        of_trials = f", trials {trials_done}/{trials}" if trials else ""
        head = f"stages {stages_done}/{stages}{of_trials}{failures}"
        standing = Table.grid(padding=(0, 2))
        for label, seeds, mean, failures in rows:
            standing.add_row(Text(label), seeds, Text(f"{metric} {mean}"), Text(failures, style="red"))
        self._live.update(Group(Text(head), table, standing))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class RowScores:
    """How the rows of a running sweep do: seeds done, the metric so far, failures. Reads each result once.

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
            result = read_json(Path(entry["folder"]) / RESULT_FILE) or {}
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
