"""A frozen trial, and how mistakes of many trials become one list."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmexp.errors import UserError
from mmexp.files import DONE, RESULT_FILE, read_json
from mmexp.stages.graph import Graph
from mmexp.stages.run import TrialContext
from mmexp.sweeping.spec.table import Request

Place = tuple[str, str, str, int]
"""Key of the trial, row, axes, seed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """A frozen trial: its resolved config and its stages; the key is that of the last stage."""

    request: Request
    config: Mapping[str, Any]
    choices: Mapping[str, Any]
    graph: Graph

    @property
    def key(self) -> str:
        return self.graph.key

    @property
    def place(self) -> Place:
        """The cell of the table that it fills."""
        return (self.key, self.request.row, str(dict(self.request.axes)), self.request.seed)

    def context(self, sweep: str | None) -> TrialContext:
        """What its stages may say about it."""
        request = self.request
        axes = [f"{axis}={value}" for axis, value in request.axes.items()]
        return TrialContext(
            key=self.key,
            sweep=sweep,
            row=request.row,
            tags=[request.row, *axes, f"seed={request.seed}"],
            config=self.config,
            choices=self.choices,
            stage_keys=self.graph.keys,
        )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A trial and how it ended."""

    trial: Trial
    status: str
    """Of ``mmexp.files``: ``done``, ``failed``, ``killed``, ``pruned``."""
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Those of its result that have a value; empty unless it is done."""
    costs: Mapping[str, float] = field(default_factory=dict)


def measured(trial: Trial, status: str, reason: str, folder: Path | None) -> Measured:
    """How a trial ended, with its result where it is done."""
    result = (read_json(folder / RESULT_FILE) if folder and status == DONE else None) or {}
    return Measured(
        trial=trial,
        status=status,
        reason=reason,
        metrics=numbers(result.get("metrics")),
        costs=numbers(result.get("costs")),
    )


def numbers(values: Mapping[str, object] | None) -> dict[str, float]:
    """Entries that are numbers."""
    return {name: float(value) for name, value in (values or {}).items() if isinstance(value, int | float)}


class Mistakes:
    """Mistakes and the rows that make them; the same one in several rows is one line."""

    def __init__(self) -> None:
        self.rows: dict[str, list[str]] = {}

    @contextmanager
    def of(self, request: Request) -> Iterator[None]:
        """Collects a ``UserError`` of one request; those of a row that is not selected do not matter."""
        try:
            yield
        except UserError as error:
            for line in str(error).splitlines() if request.selected else ():
                rows = self.rows.setdefault(line, [])
                if request.label not in rows:
                    rows.append(request.label)

    def raise_if_any(self) -> None:
        if self.rows:
            raise UserError("\n".join(f"{', '.join(rows)}: {line}" for line, rows in self.rows.items()))


def shared_trials(trials: Sequence[Trial]) -> list[list[str]]:
    """Rows that are the same trial, in groups."""
    labels: dict[tuple[str, int], list[str]] = {}
    for trial in trials:
        labels.setdefault((trial.key, trial.request.seed), []).append(trial.request.label)
    groups = {tuple(group): None for group in labels.values() if len(group) > 1}
    return [list(group) for group in groups]
