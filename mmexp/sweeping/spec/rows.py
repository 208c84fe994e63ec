"""The config node ``sweep`` and the command line as a list of trials: rows x axes x seeds."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmexp.errors import UserError, nearest
from mmexp.sweeping.spec.axes import ROW, Axes, accumulated, read_exclude
from mmexp.sweeping.spec.findings import check_findings
from mmexp.sweeping.spec.overrides import key_of, parse

SWEEP_KEYS = (
    "title", "source", "metric", "baseline", "seeds", "rows", "cumulative", "axes", "zip", "exclude", "only",
    "findings", "note",
)  # fmt: skip
ROW_KEYS = ("overrides", "published", "note")
BLIND = "blind"
BLIND_OVERRIDE = "recipe=blind"
MULTIRUN = "multirun"
NOT_IDENTITY = ("sweep", "hydra", "paths", "logger", "sweeps")
"""Overrides of these keys do not make another sweep."""
MAX_NAME = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One cell of the table: what to compose."""

    row: str
    axes: Mapping[str, str]
    seed: int
    overrides: tuple[str, ...]
    """All but the seed."""
    selected: bool
    """False for a row that ``sweep.only`` leaves out now."""

    @property
    def label(self) -> str:
        places = ", ".join(f"{axis}={value}" for axis, value in self.axes.items())
        return f"{self.row} [{places}]" if places else self.row


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandLine:
    """Overrides of a sweep, sorted by what they are for."""

    sweep: str | None
    """Option of the group ``sweeps``."""
    plain: tuple[str, ...]
    """Those with one value, ``sweeps=...`` among them."""
    axes: Mapping[str, tuple[str, ...]]
    """Key -> overrides, one for each value."""
    seeds: tuple[int, ...] | None
    keys: frozenset[str] = field(default=frozenset())
    """Keys of ``plain``."""
    ranges: Mapping[str, str] = field(default_factory=dict)
    """Key -> override as it was given, of every key but ``seed`` with several values or an interval."""

    @property
    def for_trials(self) -> tuple[str, ...]:
        """What every trial is composed with: all but changes of the table itself."""
        return tuple(text for text in self.plain if key_of(text).split(".")[0] != "sweep")

    @property
    def name(self) -> str:
        """Of the sweep's folder: the sweep, and what the command line changes in it."""
        own = [text for text in self.plain if key_of(text).split(".")[0] not in NOT_IDENTITY]
        own += [
            f"{key}={','.join(text.split('=', 1)[1] for text in self.axes.get(key, (given,)))}"
            for key, given in self.ranges.items()
        ]
        suffix = slug(own)
        if self.sweep is None:
            return f"{MULTIRUN}/{suffix or 'default'}"
        return f"{self.sweep}@{suffix}" if suffix else self.sweep


def read_command_line(arguments: Sequence[str]) -> CommandLine:
    """Sort overrides. A key with several values becomes an axis; ``seed`` gives the seeds.

    Raises:
        UserError: an override that cannot be read, a seed that is not an integer.
    """
    plain: list[str] = []
    axes: dict[str, tuple[str, ...]] = {}
    seeds: tuple[int, ...] | None = None
    ranges: dict[str, str] = {}
    sweep, keys = None, set()
    for override in parse(arguments):
        key = override.key_or_group
        if key == "seed":
            seeds = _seeds(override)
        elif override.is_sweep_override():
            ranges[key] = str(override.input_line)
            if override.is_discrete_sweep():
                axes[key] = tuple(f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator())
        else:
            plain.append(str(override.input_line))
            keys.add(key)
            if key == "sweeps":
                sweep = str(override.value())
    return CommandLine(sweep=sweep, plain=tuple(plain), axes=axes, seeds=seeds, keys=frozenset(keys), ranges=ranges)


def check_node(node: Mapping[str, Any], name: str) -> None:
    """Raises ``UserError`` for an unknown key, a row that is no row, or names that refer to no row."""
    for key in node:
        if key not in SWEEP_KEYS:
            raise UserError(f"sweep.{key}: no such key; {nearest(key, SWEEP_KEYS)}")
    rows = node.get("rows") or {}
    if not isinstance(rows, Mapping) or not (rows or node.get("axes") or node.get("zip")):
        raise UserError(f"sweeps/{name}: a sweep needs sweep.rows (a mapping of names), sweep.axes or sweep.zip")
    if not isinstance(node.get("cumulative", False), bool):
        raise UserError(f"sweep.cumulative: {node['cumulative']}: write true or false")
    for row, value in rows.items():
        for key in value if isinstance(value, Mapping) else ():
            if key not in ROW_KEYS:
                raise UserError(f"sweep.rows.{row}.{key}: no such key; {nearest(key, ROW_KEYS)}")
        if not isinstance(value, Mapping) or not isinstance(value.get("overrides", []), list):
            raise UserError(f"sweep.rows.{row}: write {{overrides: [key=value, ...]}}")
    baseline = node.get("baseline")
    if rows and baseline is not None and baseline not in rows:
        raise UserError(f"sweep.baseline: no row '{baseline}'; {nearest(str(baseline), rows)}")
    for row in node.get("only") or ():
        if row not in {*rows, BLIND}:
            raise UserError(f"sweep.only: no row '{row}'; {nearest(str(row), rows)}")
    check_findings(node.get("findings"), [*rows, BLIND])


def expand(node: Mapping[str, Any], line: CommandLine, *, blind: bool) -> list[Request]:
    """Rows x axes x seeds, seeds last; without rows each point of the axes is a row.

    ``cumulative``: each row has its own overrides and those of all rows before it; of one key the later counts.
    ``zip``: axes of one length that are varied together. ``exclude``: points that are left out.

    Args:
        node: the config node ``sweep``, checked.
        line: the command line.
        blind: add a row that trains and evaluates the baseline row without images.

    Raises:
        UserError: one key set twice, seeds that are no whole numbers, axes that do not fit together.
    """
    for key in line.ranges.keys() - line.axes.keys():
        raise UserError(f"{line.ranges[key]}: an interval has no list of values; use choices or range()")
    rows = {name: [str(text) for text in row.get("overrides", [])] for name, row in (node.get("rows") or {}).items()}
    rows = accumulated(rows) if node.get("cumulative") else rows
    axes = Axes(node, line)
    named = bool(rows)
    if named and blind and BLIND not in rows:
        base = rows.get(node.get("baseline") or next(iter(rows)), [])
        rows[BLIND] = [*(text for text in base if key_of(text).split(".")[0] != "recipe"), BLIND_OVERRIDE]
    _check_conflicts(rows, axes.values, line)
    left_out = read_exclude(node, rows, axes.values)
    only, seeds = node.get("only"), line.seeds or node_seeds(node)
    requests = []
    for seed in seeds:
        for row, overrides in (rows or {"": []}).items():
            for point in axes.points():
                places = {key: text.split("=", 1)[1] for key, text in point.items()}
                where = {ROW: row, **places}
                if any(all(where[key] == value for key, value in entry.items()) for entry in left_out):
                    continue
                requests.append(
                    Request(
                        row=row or ", ".join(f"{key}={value}" for key, value in places.items()) or "default",
                        axes=places if named else {},
                        seed=seed,
                        overrides=(*line.for_trials, *overrides, *point.values()),
                        selected=not only or row in only,
                    )
                )
    if not requests:
        raise UserError("sweep.exclude: leaves nothing of the sweep")
    return requests


def slug(overrides: Sequence[str]) -> str:
    """A folder name for a set of overrides: themselves where they are short, else shortened with a hash."""
    text = ",".join(sorted(overrides))
    clean = re.sub(r"[^\w=,.+~-]+", "_", text)
    if clean == text and len(clean) <= MAX_NAME:
        return clean
    return f"{clean[:MAX_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def node_seeds(node: Mapping[str, Any]) -> tuple[int, ...]:
    """``sweep.seeds``, each once. Raises ``UserError``."""
    seeds = node.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise UserError(f"sweep.seeds: a list of whole numbers is needed, not {seeds}")
    return tuple(dict.fromkeys(seeds))


def _seeds(override: Any) -> tuple[int, ...]:
    values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    if not all(type(value) is int for value in values):
        raise UserError(f"{override.input_line}: a seed is a whole number")
    return tuple(dict.fromkeys(values))


def _check_conflicts(rows: Mapping[str, Sequence[str]], axes: Mapping[str, Any], line: CommandLine) -> None:
    """A key that two places set: one of them would silently win."""
    for key in sorted(line.keys & axes.keys()):
        raise UserError(f"{key}: is an axis of the sweep and set on the command line")
    for row, overrides in rows.items():
        for override in parse(overrides):
            key, where = override.key_or_group, f"sweep.rows.{row}"
            if override.is_sweep_override():
                raise UserError(f"{where}: '{override.input_line}' has several values; use sweep.axes")
            if key == "seed":
                raise UserError(f"{where}: '{override.input_line}': seeds belong to sweep.seeds")
            if row != BLIND and (key in axes or key in line.keys):
                place = "sweep.axes" if key in axes and key not in line.axes else "the command line"
                raise UserError(f"{key}: row '{row}' sets it ({override.input_line}), so {place} cannot")
