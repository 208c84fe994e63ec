"""A table as a list of trials: rows x axes x seeds, with what the command line adds."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmexp.config.overrides import as_text, key_of, parse
from mmexp.errors import UserError, nearest
from mmexp.sweeping.spec.command_line import CommandLine
from mmexp.sweeping.spec.schema import SweepNode

BLIND = "blind"
BLIND_OVERRIDE = "recipe=blind"
ROW = "row"
"""Key of a row's name in ``sweep.exclude``."""
OF_THE_SWEEP = ("sweep", "sweeps", "hydra", "paths")
Overrides = dict[str, list[str]]
"""Row -> its overrides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One cell of the table: what to compose."""

    row: str
    axes: Mapping[str, str]
    seed: int
    overrides: tuple[str, ...]
    """All but the seed."""
    selected: bool = True
    """False for a row that ``sweep.only`` leaves out now."""

    @property
    def label(self) -> str:
        places = ", ".join(f"{axis}={value}" for axis, value in self.axes.items())
        return f"{self.row} [{places}]" if places else self.row


def expand(node: SweepNode, line: CommandLine, *, blind: bool) -> list[Request]:
    """Rows x axes x seeds, seeds last; without rows each point of the axes is a row.

    Args:
        node: the sweep's file.
        line: the command line.
        blind: add a row that trains and evaluates the baseline row without images.

    Raises:
        UserError: one key set twice, axes that do not fit together, names that refer to nothing.
    """
    for key in line.ranges.keys() - line.axes.keys():
        raise UserError(f"{line.ranges[key]}: an interval has no list of values; use choices or range()")
    rows = rows_of(node, blind)
    axes = Axes(node, line)
    _check_conflicts(rows, axes, line)
    left_out = _read_exclude(node, rows, axes.values)
    requests = []
    for seed in line.seeds or dict.fromkeys(node.seeds):
        for row, overrides in (rows or {"": []}).items():
            for point in axes.points():
                places = {key: text.split("=", 1)[1] for key, text in point.items()}
                where = {ROW: row, **places}
                if any(all(where[key] == value for key, value in entry.items()) for entry in left_out):
                    continue
                request = Request(
                    row=row or ", ".join(f"{key}={value}" for key, value in places.items()) or "default",
                    axes=places if rows else {},
                    seed=seed,
                    overrides=(*line.for_trials, *overrides, *point.values()),
                    selected=not node.only or row in node.only,
                )
                requests.append(request)
    if not requests:
        raise UserError("sweep.exclude: leaves nothing of the sweep")
    return requests


def rows_of(node: SweepNode, blind: bool) -> Overrides:
    """Rows of the file, ladders added up, and the blind one. Raises ``UserError`` for names that refer to no row."""
    rows = {name: list(row.overrides) for name, row in node.rows.items()}
    rows = accumulated(rows) if node.cumulative else rows
    if rows and node.baseline is not None and node.baseline not in rows:
        raise UserError(f"sweep.baseline: no row '{node.baseline}'; {nearest(node.baseline, rows)}")
    for name in node.only:
        if name not in {*rows, BLIND}:
            raise UserError(f"sweep.only: no row '{name}'; {nearest(name, rows)}")
    if rows and blind and BLIND not in rows:
        rows[BLIND] = blind_overrides(rows[node.baseline or next(iter(rows))])
    return rows


def blind_overrides(overrides: Sequence[str]) -> list[str]:
    """Those of a row, trained and evaluated without images."""
    return [*(text for text in overrides if key_of(text).split(".")[0] != "recipe"), BLIND_OVERRIDE]


def accumulated(rows: Mapping[str, Sequence[str]]) -> Overrides:
    """A ladder: each row with what the rows before it set; of one key the later counts, at its first place."""
    found: dict[str, str] = {}
    ladder = {}
    for row, overrides in rows.items():
        found = {**found, **{key_of(text): text for text in overrides}}
        ladder[row] = list(found.values())
    return ladder


class Axes:
    """``sweep.axes`` and the command line's (each crosses all others), and ``sweep.zip`` (varied together).

    Raises:
        UserError: an axis without values, zipped ones of different lengths, an axis that is there twice.
    """

    def __init__(self, node: SweepNode, line: CommandLine) -> None:
        crossed = {**_as_overrides(node.axes, "sweep.axes"), **line.axes}
        zipped = _as_overrides(node.zip, "sweep.zip")
        for key in zipped.keys() & crossed.keys():
            raise UserError(f"sweep.zip.{key}: is an axis of its own too; name it once")
        if len({len(values) for values in zipped.values()}) > 1:
            lengths = ", ".join(f"{key} has {len(values)}" for key, values in zipped.items())
            raise UserError(f"sweep.zip: its lists need one length; {lengths} values")
        self.values: dict[str, tuple[str, ...]] = {**crossed, **zipped}
        """Key -> overrides."""
        self._steps = [[{key: text} for text in texts] for key, texts in crossed.items()]
        if zipped:
            self._steps.append([dict(zip(zipped, texts, strict=True)) for texts in zip(*zipped.values(), strict=True)])

    def points(self) -> Iterator[dict[str, str]]:
        """Key -> override, for each point; one empty point without axes."""
        for steps in itertools.product(*self._steps):
            yield {key: text for step in steps for key, text in step.items()}


def _as_overrides(axes: Mapping[str, list[Any]], where: str) -> dict[str, tuple[str, ...]]:
    for key, values in axes.items():
        if not values:
            raise UserError(f"{where}.{key}: needs at least one value")
    return {key: tuple(f"{key}={as_text(value)}" for value in values) for key, values in axes.items()}


def _read_exclude(node: SweepNode, rows: Mapping[str, Any], axes: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Entries with values as texts. Raises ``UserError`` for a name that is not an axis, a value that is not there."""
    there = {ROW: list(rows)} | {key: [text.split("=", 1)[1] for text in texts] for key, texts in axes.items()}
    for number, entry in enumerate(node.exclude):
        where = f"sweep.exclude[{number}]"
        for key, value in entry.items():
            if key not in there:
                raise UserError(f"{where}.{key}: no such axis; {nearest(str(key), there)}")
            if as_text(value) not in there[key]:
                raise UserError(f"{where}.{key}: no value '{as_text(value)}'; {nearest(as_text(value), there[key])}")
    return [{key: as_text(value) for key, value in entry.items()} for entry in node.exclude if entry]


def _check_conflicts(rows: Mapping[str, Sequence[str]], axes: Axes, line: CommandLine) -> None:
    """A key that two places set: one of them would silently win."""
    for key in sorted(line.keys & axes.values.keys()):
        raise UserError(f"{key}: is an axis of the sweep and set on the command line")
    for row, overrides in rows.items():
        where = f"sweep.rows.{row}"
        for override in parse(overrides, where):
            key = override.key_or_group
            if key.split(".")[0].split("/")[0] in OF_THE_SWEEP:
                raise UserError(f"{where}: '{override.input_line}' is of the whole sweep, so a row cannot set it")
            if override.is_sweep_override():
                raise UserError(f"{where}: '{override.input_line}' has several values; use sweep.axes")
            if key == "seed":
                raise UserError(f"{where}: '{override.input_line}': seeds belong to sweep.seeds")
            if row != BLIND and (key in axes.values or key in line.keys):
                place = "sweep.axes" if key in axes.values and key not in line.axes else "the command line"
                raise UserError(f"{key}: row '{row}' sets it ({override.input_line}), so {place} cannot")
