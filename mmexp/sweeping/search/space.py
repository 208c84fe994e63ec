"""What a search may choose: keys of the config with choices, ranges and intervals, in Hydra's own sweep syntax."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmexp.config import options
from mmexp.config.overrides import as_text, parse
from mmexp.errors import UserError, nearest

Point = Mapping[str, Any]
"""Name of a dimension -> value: text for a choice, else a number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dimension:
    """One key and its possible values: ``choices`` as override texts, or numbers from ``low`` to ``high`` inclusive."""

    name: str
    key: str
    """As an override has it: ``name`` with its plus signs."""
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    """None: continuous."""
    log: bool = False

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def distribution(self) -> Any:
        """As Optuna has it."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution(self.choices)
        if self.is_whole:
            return IntDistribution(int(self.low), int(self.high), self.log, int(self.step or 1))
        return FloatDistribution(self.low, self.high, self.log, self.step)

    def values(self) -> list[Any] | None:
        """All values where there are finitely many."""
        if self.choices:
            return list(self.choices)
        step = self.step or (1 if self.is_whole else None)
        if step is None:
            return None
        number = math.floor((self.high - self.low) / step + 1e-9) + 1
        if self.is_whole:
            return [self.low + index * int(step) for index in range(number)]
        return [round(self.low + index * step, 12) for index in range(number)]

    def override(self, value: Any) -> str:
        return f"{self.key}={value if isinstance(value, str) else repr(value)}"

    def value_of(self, text: str) -> Any:
        """The value that an override's right side means; None where it is not in this dimension."""
        if self.choices:
            return next((choice for choice in self.choices if _plain(choice) == _plain(text)), None)
        try:
            value = int(text) if self.is_whole else float(text)
        except ValueError:
            return None
        known = self.values()
        return value if (self.low <= value <= self.high and (known is None or value in known)) else None

    def __str__(self) -> str:
        if self.choices:
            return ", ".join(self.choices)
        step = f", step {self.step:g}" if self.step is not None and not (self.is_whole and self.step == 1) else ""
        return f"{self.low:g} to {self.high:g}{step}{', log' if self.log else ''}"


@dataclass(frozen=True, slots=True)
class Space:
    """Dimensions in their order."""

    dimensions: tuple[Dimension, ...]

    @property
    def size(self) -> int | None:
        """Number of points; None where an interval makes it infinite."""
        values = [dimension.values() for dimension in self.dimensions]
        return None if any(part is None for part in values) else math.prod(len(part or ()) for part in values)

    def distributions(self) -> dict[str, Any]:
        return {dimension.name: dimension.distribution() for dimension in self.dimensions}

    def overrides(self, point: Point) -> tuple[str, ...]:
        return tuple(dimension.override(point[dimension.name]) for dimension in self.dimensions)

    def points(self) -> Iterator[dict[str, Any]]:
        """Every point of a finite space, the last dimension fastest."""
        yield from _product(self.dimensions, {})

    def point_of(self, overrides: Sequence[str]) -> dict[str, Any] | None:
        """The point that a row's overrides are; None where they set anything else, or not every dimension."""
        given = dict(text.split("=", 1) for text in overrides if "=" in text)
        if given.keys() != {dimension.key for dimension in self.dimensions}:
            return None
        point = {dimension.name: dimension.value_of(given[dimension.key]) for dimension in self.dimensions}
        return None if None in point.values() else point

    def identity(self) -> dict[str, Any]:
        """What makes it another space, as JSON has it; the order of dimensions and choices is no part of it."""
        parts = {
            dimension.name: {**asdict(dimension), "choices": sorted(dimension.choices)} for dimension in self.dimensions
        }
        return json.loads(json.dumps(dict(sorted(parts.items()))))


def read_space(node: Mapping[str, Any] | None, arguments: Sequence[str], scale: str) -> Space:
    """The space of ``sweep.search.space`` and of the command line, which replaces dimensions of the same key.

    Args:
        node: key -> list of values, or a text in Hydra's sweep syntax (``interval(0,1)``, ``range(1,9,2)``, ``a,b``,
            ``glob(mlp*)``, ``tag(log,interval(1e-5,1e-1))``).
        arguments: overrides with several values or an interval; they become dimensions.
        scale: for the options of a group that ``glob`` means.

    Raises:
        UserError: a dimension that cannot be read, or nothing to search.
    """
    found = {}
    for key, value in (node or {}).items():
        where = f"sweep.search.space.{key}"
        dimension = (
            _from_list(str(key), value, where) if isinstance(value, list) else _from_text(str(key), value, where, scale)
        )
        found[dimension.name] = dimension
    for override in parse(arguments):
        dimension = _from_override(override, str(override.input_line), scale)
        found[dimension.name] = dimension
    if not found:
        raise UserError(
            "sweep.search.space: nothing to search; give {key: [value, ...]} there, or key=a,b or "
            "key='interval(low,high)' on the command line"
        )
    return Space(tuple(found.values()))


def _from_list(key: str, values: list[Any], where: str) -> Dimension:
    return _choice(key, [as_text(value) for value in values], where)


def _from_text(key: str, value: Any, where: str, scale: str) -> Dimension:
    (override,) = parse([f"{key}={value}"], where)
    if not override.is_sweep_override():
        raise UserError(f"{where}: {value} is one value; write a list, a,b, range(), interval() or glob()")
    return _from_override(override, where, scale)


def _from_override(override: Any, where: str, scale: str) -> Dimension:
    from hydra.core.override_parser.types import Glob, IntervalSweep, RangeSweep

    key, value = override.get_key_element(), override.value()
    if isinstance(value, Glob):
        there = list(options(override.key_or_group, scale))
        names = value.filter(there)
        if not names:
            asked = value.include[0].strip("*?") if value.include else ""
            raise UserError(f"{where}: no option of '{override.key_or_group}' is meant; {nearest(asked, there)}")
        return _choice(key, names, where)
    if isinstance(value, RangeSweep | IntervalSweep):
        return _numbers(key, value, isinstance(value, RangeSweep), where)
    return _choice(key, list(override.sweep_string_iterator()), where)


def _choice(key: str, texts: list[str], where: str) -> Dimension:
    distinct = tuple(dict.fromkeys(texts))
    if not distinct:
        raise UserError(f"{where}: no value to choose; give at least one")
    return Dimension(name=key.lstrip("+"), key=key, choices=distinct)


def _numbers(key: str, value: Any, is_range: bool, where: str) -> Dimension:
    tags = set(value.tags) - {"log"}
    if tags:
        raise UserError(f"{where}: tag '{sorted(tags)[0]}' means nothing here; choose from: log")
    log = "log" in value.tags
    step = None
    if is_range:
        numbers = list(value.range())
        if not numbers:
            raise UserError(f"{where}: the range is empty")
        low, high = min(numbers), max(numbers)
        step = abs(value.step)
    else:
        low, high = value.start, value.end
    if low > high:
        raise UserError(f"{where}: from {low} to {high} is nothing; the lower end comes first")
    if log and (low <= 0 or (step is not None and step != 1)):
        raise UserError(f"{where}: a logarithmic scale begins above 0 and has no step")
    return Dimension(name=key.lstrip("+"), key=key, low=low, high=high, step=step, log=log)


def _product(dimensions: Sequence[Dimension], point: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if not dimensions:
        yield point
        return
    for value in dimensions[0].values() or ():
        yield from _product(dimensions[1:], {**point, dimensions[0].name: value})


def _plain(text: str) -> str:
    return "".join(letter for letter in text if letter not in " '\"")
