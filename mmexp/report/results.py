"""What a report is made from: the ledger's trials and the run directories they point to."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mmexp.errors import UserError
from mmexp.evaluation.metrics import Answers
from mmexp.evaluation.result import read_predictions, read_result
from mmexp.files import DONE, LEDGER_FILE, METRICS_FILE, PREDICTIONS_FILE


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial of the sweep: a row at a point of the axes with a seed."""

    row: str
    axes: Mapping[str, str]
    seed: int | None
    key: str
    status: str
    """``done``, ``failed``, or how far it is (``pending``, ``running``, ...)."""
    reason: str
    """Why it has no result; empty when it has one."""
    log_tail: str
    overrides: Sequence[str]
    folder: Path | None
    """The run directory; None before there is one."""

    @property
    def label(self) -> str:
        """Name of the table's line: the row, and where on the axes."""
        places = ", ".join(f"{axis}={value}" for axis, value in self.axes.items())
        return f"{self.row} [{places}]" if places else self.row

    @cached_property
    def result(self) -> dict[str, Any] | None:
        """``result.json`` of a trial that is done; None for another, or when it cannot be read."""
        if self.status != DONE or self.folder is None:
            return None
        try:
            return read_result(self.folder)
        except UserError:
            return None

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics that have a value."""
        values = (self.result or {}).get("metrics", {})
        return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}

    def answers(self) -> dict[str, Answers]:
        """Benchmark -> answers; empty when there are none to be read."""
        if self.result is None or self.folder is None or not (self.folder / PREDICTIONS_FILE).is_file():
            return {}
        try:
            return read_predictions(self.folder)
        except UserError:
            return {}

    def curve(self) -> list[dict[str, Any]]:
        """The complete lines of ``metrics.jsonl``."""
        path = self.folder / METRICS_FILE if self.folder else None
        if path is None or not path.is_file():
            return []
        lines = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                lines.append(record)
        return lines

    def problem(self) -> str:
        """Why this trial has no numbers; empty when it has."""
        if self.result is not None:
            return ""
        if self.status == DONE:
            return f"{self.folder}: result.json is missing or not readable"
        return self.reason or self.status


@dataclass(frozen=True, kw_only=True)
class SweepResults:
    """A sweep as recorded in its ledger. ``node`` is the config node ``sweep`` (rows, metric, baseline, findings)."""

    name: str
    scale: str
    node: Mapping[str, Any]
    trials: Sequence[Trial] = field(default_factory=tuple)
    search: Mapping[str, Any] = field(default_factory=dict)
    """What a search has decided, in the form of its kind; empty for a table."""

    def lines(self) -> dict[str, list[Trial]]:
        """Label -> its trials, in the order of the sweep file's rows (``blind``, where it was added, at the end)."""
        order = {row: place for place, row in enumerate(self.node.get("rows") or {})}
        ranked = sorted(enumerate(self.trials), key=lambda item: (order.get(item[1].row, len(order)), item[0]))
        lines: dict[str, list[Trial]] = {}
        for _, trial in ranked:
            lines.setdefault(trial.label, []).append(trial)
        return lines


def load_sweep(sweep_dir: Path) -> SweepResults:
    """Raises ``UserError`` when the ledger is missing or cannot be read."""
    path = sweep_dir / LEDGER_FILE
    try:
        ledger = json.loads(path.read_text(encoding="utf-8"))
        trials = [
            Trial(
                row=str(entry["row"]),
                axes={str(axis): str(value) for axis, value in (entry.get("axes") or {}).items()},
                seed=entry.get("seed"),
                key=str(entry["key"]),
                status=str(entry["status"]),
                reason=str(entry.get("reason") or ""),
                log_tail=str(entry.get("log_tail") or ""),
                overrides=tuple(entry.get("overrides") or ()),
                folder=Path(entry["folder"]) if entry.get("folder") else None,
            )
            for entry in ledger["trials"]
        ]
        return SweepResults(
            name=ledger["name"],
            scale=ledger["scale"],
            node=ledger["sweep"],
            trials=tuple(trials),
            search=ledger.get("search") or {},
        )
    except OSError:
        raise UserError(f"{path}: no ledger; run 'mmexp sweep' first, or give the folder of a sweep") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not readable ({type(error).__name__}: {error})") from None
