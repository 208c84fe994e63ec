"""The config node ``sweep`` and the command line as a list of trials: rows x axes x seeds."""

import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmexp.errors import UserError, nearest

SWEEP_KEYS = ("title", "source", "metric", "baseline", "seeds", "rows", "axes", "only", "findings", "note")
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
        return tuple(text for text in self.plain if _key(text).split(".")[0] != "sweep")

    @property
    def name(self) -> str:
        """Of the sweep's folder: the sweep, and what the command line changes in it."""
        own = [text for text in self.plain if _key(text).split(".")[0] not in NOT_IDENTITY]
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
        UserError: an override that cannot be read, a seed that is no whole number.
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
    if not isinstance(rows, Mapping) or not (rows or node.get("axes")):
        raise UserError(f"sweeps/{name}: a sweep needs sweep.rows (a mapping of names) or sweep.axes")
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


def expand(node: Mapping[str, Any], line: CommandLine, *, blind: bool) -> list[Request]:
    """Rows x axes x seeds, seeds last; without rows each point of the axes is a row.

    Args:
        node: the config node ``sweep``, checked.
        line: the command line.
        blind: add a row that trains and evaluates the baseline row without images.

    Raises:
        UserError: one key set twice, seeds that are no whole numbers.
    """
    for key in line.ranges.keys() - line.axes.keys():
        raise UserError(f"{line.ranges[key]}: an interval has no list of values; use choices or range()")
    axes = {**_node_axes(node), **line.axes}
    rows = {name: [str(text) for text in row.get("overrides", [])] for name, row in (node.get("rows") or {}).items()}
    named = bool(rows)
    if named and blind and BLIND not in rows:
        base = rows.get(node.get("baseline") or next(iter(rows)), [])
        rows[BLIND] = [*(text for text in base if _key(text).split(".")[0] != "recipe"), BLIND_OVERRIDE]
    _check_conflicts(rows, axes, line)
    only, seeds = node.get("only"), line.seeds or _node_seeds(node)
    requests = []
    for seed in seeds:
        for row, overrides in (rows or {"": []}).items():
            for point in itertools.product(*axes.values()):
                places = {key: text.split("=", 1)[1] for key, text in zip(axes, point, strict=True)}
                requests.append(
                    Request(
                        row=row or ", ".join(f"{key}={value}" for key, value in places.items()) or "default",
                        axes=places if named else {},
                        seed=seed,
                        overrides=(*line.for_trials, *overrides, *point),
                        selected=not only or row in only,
                    )
                )
    return requests


def parse(arguments: Sequence[str]) -> list[Any]:
    """Hydra's own reading of overrides. Raises ``UserError``."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser, parsed = OverridesParser.create(), []
    for text in arguments:
        try:
            parsed.append(parser.parse_override(text))
        except (HydraException, ValueError):
            raise UserError(f"'{text}' is no override; write key=value") from None
    return parsed


def slug(overrides: Sequence[str]) -> str:
    """A folder name for a set of overrides: themselves where they are short, else shortened with a hash."""
    text = ",".join(sorted(overrides))
    clean = re.sub(r"[^\w=,.+~-]+", "_", text)
    if clean == text and len(clean) <= MAX_NAME:
        return clean
    return f"{clean[:MAX_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def as_text(value: Any) -> str:
    """A YAML value as the right side of an override."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(as_text(item) for item in value)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_text(item)}" for key, item in value.items()) + "}"
    return str(value)


def _node_axes(node: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    axes = {}
    for key, values in (node.get("axes") or {}).items():
        if not isinstance(values, list) or not values:
            raise UserError(f"sweep.axes.{key}: a list of values is needed")
        axes[str(key)] = tuple(f"{key}={as_text(value)}" for value in values)
    return axes


def _node_seeds(node: Mapping[str, Any]) -> tuple[int, ...]:
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


def _key(text: str) -> str:
    return text.lstrip("+~").split("=")[0].split("@")[0]
