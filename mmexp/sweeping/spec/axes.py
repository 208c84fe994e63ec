"""Axes of a table, the points that they span, and ladders of rows."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmexp.errors import UserError, nearest
from mmexp.sweeping.spec.overrides import as_text, key_of

if TYPE_CHECKING:
    from mmexp.sweeping.spec.rows import CommandLine

ROW = "row"
"""Key of a row's name in ``sweep.exclude``."""


class Axes:
    """``sweep.axes`` and the command line's (each crosses all others), and ``sweep.zip`` (varied together).

    Raises:
        UserError: an axis that is no list, zipped ones of different lengths, an axis that is there twice.
    """

    def __init__(self, node: Mapping[str, Any], line: "CommandLine") -> None:
        crossed = {**_read(node.get("axes"), "sweep.axes"), **line.axes}
        zipped = _read(node.get("zip"), "sweep.zip")
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


def accumulated(rows: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """A ladder: each row with what the rows before it set, in the order of its first setting."""
    found: dict[str, str] = {}
    ladder = {}
    for row, overrides in rows.items():
        found = {**found, **{key_of(text): text for text in overrides}}
        ladder[row] = list(found.values())
    return ladder


def read_exclude(
    node: Mapping[str, Any], rows: Mapping[str, Any], axes: Mapping[str, Sequence[str]]
) -> list[dict[str, str]]:
    """``sweep.exclude``: a list of mappings; a point is left out when all that one of them names is so.

    Raises:
        UserError: a name that is neither ``row`` nor an axis, a value that is not there.
    """
    entries = node.get("exclude") or []
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) and entry for entry in entries):
        raise UserError("sweep.exclude: write a list of {row: NAME, AXIS: VALUE}")
    there = {ROW: list(rows)} | {key: [text.split("=", 1)[1] for text in texts] for key, texts in axes.items()}
    found = []
    for number, entry in enumerate(entries):
        where = f"sweep.exclude[{number}]"
        for key, value in entry.items():
            if key not in there:
                raise UserError(f"{where}.{key}: no such axis; {nearest(str(key), there)}")
            if as_text(value) not in there[key]:
                raise UserError(f"{where}.{key}: no value '{as_text(value)}'; {nearest(as_text(value), there[key])}")
        found.append({str(key): as_text(value) for key, value in entry.items()})
    return found


def _read(node: Any, where: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(node or {}, Mapping):
        raise UserError(f"{where}: write {{KEY: [value, value]}}")
    axes = {}
    for key, values in (node or {}).items():
        if not isinstance(values, list) or not values:
            raise UserError(f"{where}.{key}: a list of values is needed")
        axes[str(key)] = tuple(f"{key}={as_text(value)}" for value in values)
    return axes
