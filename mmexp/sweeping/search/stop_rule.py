"""When a round of a greedy search ends it: ``sweep.search.stop._target_`` names a ``StopRule``."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from mmexp.errors import UserError
from mmexp.statistics.seed_noise import noise_of_seeds

SAME = 1e-9
"""Means that differ by less are equal."""


class StopRule(ABC):
    """Decides whether the best candidate of a round is better enough."""

    min_seeds = 1

    @abstractmethod
    def needed(self, values: Sequence[Sequence[float]], tried: int) -> float | None:
        """What the improvement is compared with, in the metric's scale; None when it does not matter.

        Args:
            values: (sets, seeds) of all sets measured so far that have every seed.
            tried: candidates of this round.
        """

    @abstractmethod
    def is_enough(self, improvement: float, needed: float) -> bool:
        """Whether the search goes on with the best candidate."""

    @abstractmethod
    def __str__(self) -> str:
        """For the report."""


class Exhaust(StopRule):
    """Goes on until no candidate is left; the result is the best set seen."""

    def needed(self, values: Sequence[Sequence[float]], tried: int) -> None:
        return None

    def is_enough(self, improvement: float, needed: float) -> bool:
        return True

    def __str__(self) -> str:
        return "exhaust"


class MinImprovement(StopRule):
    """Ends when the best candidate improves its set by less than ``amount``, or not at all."""

    def __init__(self, amount: float) -> None:
        if amount < 0:
            raise UserError(f"sweep.search.stop.amount: {amount} must not be below 0")
        self.amount = float(amount)

    def needed(self, values: Sequence[Sequence[float]], tried: int) -> float:
        return self.amount

    def is_enough(self, improvement: float, needed: float) -> bool:
        return improvement > SAME and improvement >= needed - SAME

    def __str__(self) -> str:
        return f"min_improvement {self.amount:g}"


class SeedNoise(StopRule):
    """Ends when the improvement can be the noise of seeds (``mmexp.statistics.seed_noise``)."""

    min_seeds = 2

    def __init__(self, confidence: float = 0.95) -> None:
        if not 0.5 <= confidence < 1:
            raise UserError(f"sweep.search.stop.confidence: {confidence} must be at least 0.5 and below 1")
        self.confidence = confidence

    def needed(self, values: Sequence[Sequence[float]], tried: int) -> float:
        return noise_of_seeds(values, tried, self.confidence)

    def is_enough(self, improvement: float, needed: float) -> bool:
        return improvement > needed

    def __str__(self) -> str:
        return f"seed_noise {self.confidence:g}"
