"""From a point of the space to trials that can be run, or the reason why it is infeasible."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmexp.errors import UserError
from mmexp.sweeping.search.optuna_schema import Limit
from mmexp.sweeping.search.space import Dimension, Point, Space
from mmexp.sweeping.spec.sweep import Sweep
from mmexp.sweeping.spec.table import Request
from mmexp.sweeping.spec.trials import Trial

TRIES = 8
"""Points that a value is tried in before it counts as a mistake."""
INVALID = "valid"
"""Name of the constraint that a point breaks which cannot be composed or built."""


@dataclass(frozen=True, slots=True)
class CheckedPoint:
    """A point, frozen and checked."""

    trials: list[Trial]
    """One for each seed; empty where it cannot be composed or built."""
    excess: Mapping[str, float]
    """Constraint -> how far outside; 0 or less is feasible."""
    reason: str
    """Why it is infeasible, or an empty text."""


class Points:
    """Makes trials of points.

    Args:
        sweep: freezes and checks.
        limits: quantity -> bounds, looked at before anything is trained.
    """

    def __init__(self, sweep: Sweep, space: Space, limits: Mapping[str, Limit]) -> None:
        self.sweep, self.space, self.limits = sweep, space, limits

    def requests(self, row: str, point: Point) -> list[Request]:
        """One for each seed."""
        return [self.sweep.request(row, seed, self.space.overrides(point)) for seed in self.sweep.seeds]

    def freeze(self, row: str, point: Point) -> list[Trial]:
        """Raises ``UserError`` where the point cannot be composed."""
        return self.sweep.freeze(self.requests(row, point))

    def check(self, row: str, point: Point) -> CheckedPoint:
        """Compose, freeze, measure on meta tensors, validate."""
        try:
            trials = self.freeze(row, point)
            figures = quantities(row, trials[0].config) if self.limits else {}
            excess = {name: limit.excess(figures[name]) for name, limit in self.limits.items()}
            broken = [name for name in self.limits if excess[name] > 0]
            if broken:
                reason = "; ".join(f"{name} {figures[name]:g}, not {self.limits[name].text(name)}" for name in broken)
                return CheckedPoint(trials, excess, reason)
            self.sweep.check(trials)
        except UserError as error:
            return CheckedPoint([], {INVALID: 1.0}, str(error).splitlines()[0].removeprefix(f"{row}: "))
        return CheckedPoint(trials, {**excess, INVALID: 0.0}, "")

    def check_values(self) -> None:
        """Try every value once before anything starts.

        A value that composes in none of some points, or a space of which no tried point can be built, is a mistake of
        the config; what only some combinations break is left to the search.

        Raises:
            UserError: one line for each such value.
        """
        lines: list[str] = []
        tried: list[Trial] = []
        for dimension, value in _values(self.space):
            errors: list[str] = []
            for point in _points_with(self.space, dimension, value, TRIES):
                try:
                    tried += self.freeze("search", point)[:1]
                    break
                except UserError as error:
                    errors += [line.removeprefix("search: ") for line in str(error).splitlines()]
            else:
                lines.append(next((text for text in errors if dimension.override(value) in text), errors[0]))
        if lines:
            raise UserError("\n".join(dict.fromkeys(lines)))
        self._check_one_can_be_built(tried[:TRIES])

    def _check_one_can_be_built(self, trials: list[Trial]) -> None:
        first: UserError | None = None
        for trial in trials:
            try:
                return self.sweep.check([trial])
            except UserError as error:
                first = first or UserError(str(error).removeprefix("search: "))
        if first is not None:
            raise first


def quantities(row: str, config: Mapping[str, Any]) -> dict[str, float]:
    """What constraints may limit, from shapes alone (``mmexp.planning.plan``). Raises ``UserError``."""
    from mmexp.planning.plan import CONNECTOR, plan

    found = plan(row, config)
    return {
        "visual_tokens": found.visual_tokens,
        "parameters": sum(found.parameters.values()),
        "connector_parameters": sum(size for part, size in found.parameters.items() if part in CONNECTOR),
        "trained_parameters": max(found.trained.values(), default=0),
    }


def _values(space: Space) -> Iterator[tuple[Dimension, Any]]:
    """Every choice, and both ends of numbers."""
    for dimension in space.dimensions:
        for value in dimension.choices or dict.fromkeys((dimension.low, dimension.high)):
            yield dimension, value


def _points_with(space: Space, dimension: Dimension, value: Any, number: int) -> Iterator[dict[str, Any]]:
    """The first values of all other dimensions, then drawn ones."""
    draw = random.Random(0)
    for place in range(number):
        point = {}
        for other in space.dimensions:
            choices = other.choices or (other.low, other.high)
            point[other.name] = value if other is dimension else (choices[0] if place == 0 else draw.choice(choices))
        yield point
