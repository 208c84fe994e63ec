"""One round of a greedy search: what is known of each set, and which is kept. Nothing is run here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from mmexp.sweeping.search.stop_rule import SAME, StopRule

Members = tuple[str, ...]
"""A set in its canonical order: the base, then the candidates as they are listed."""


@dataclass(kw_only=True)
class Score:
    """What is known of a set."""

    members: Members
    values: dict[int, float] = field(default_factory=dict)
    """Seed -> metric."""
    problem: str = ""
    """Why a seed has none."""
    costs: dict[str, float] = field(default_factory=dict)
    complete: bool = False
    """Every seed has a value."""

    @property
    def mean(self) -> float:
        return math.fsum(self.values.values()) / len(self.values) if self.complete else -math.inf

    @property
    def std(self) -> float | None:
        """Sample standard deviation over seeds."""
        if not self.complete or len(self.values) < 2:
            return None
        return math.sqrt(math.fsum((v - self.mean) ** 2 for v in self.values.values()) / (len(self.values) - 1))

    @property
    def cost(self) -> tuple[float, float]:
        """Visual tokens, then parameters; unknown ones last."""
        return (self.costs.get("visual_tokens", math.inf), self.costs.get("parameters", math.inf))


@dataclass(frozen=True, kw_only=True)
class Decision:
    """How a round ended."""

    ranked: list[Members]
    """Best first; those without a mean last."""
    best: Members | None = None
    """None when no candidate has a result for every seed."""
    tied: list[Members] = field(default_factory=list)
    """Sets with the best mean, when there are several."""
    improvement: float | None = None
    """None without a set to improve on."""
    needed: float | None = None
    """What the improvement is compared with; None when it does not matter."""
    kept: bool = False


def decide(
    stop: StopRule, current: Score | None, tried: Sequence[Score], known: Sequence[Score], seeds: Sequence[int]
) -> Decision:
    """The decision of one round: the best mean; of equal ones the cheaper, then the earlier candidate.

    Args:
        current: the set that candidates were added to; None at the start from nothing.
        tried: the round's sets, in the order of their candidates.
        known: all sets measured so far, for the seeds' noise.
        seeds: of every set.
    """
    best = best_of(tried)
    equal = [score for score in tried if score.complete and best and best.mean - score.mean <= SAME]
    ranked = sorted(tried, key=lambda score: (score not in equal, 0.0 if score in equal else -score.mean, score.cost))
    order = [score.members for score in ranked]
    if best is None:
        return Decision(ranked=order)
    improvement = ranked[0].mean - current.mean if current is not None and current.complete else None
    needed = stop.needed([[score.values[seed] for seed in seeds] for score in known if score.complete], len(tried))
    if current is None or needed is None:
        kept = True
    else:
        kept = improvement is not None and stop.is_enough(improvement, needed)
    tied = [score.members for score in ranked if score in equal] if len(equal) > 1 else []
    return Decision(ranked=order, best=order[0], tied=tied, improvement=improvement, needed=needed, kept=kept)


def best_of(scores: Sequence[Score]) -> Score | None:
    """The complete one with the best mean; of equal ones the cheaper, then the earlier; None where there is none."""
    complete = [score for score in scores if score.complete]
    top = max((score.mean for score in complete), default=-math.inf)
    return min((score for score in complete if top - score.mean <= SAME), key=lambda score: score.cost, default=None)
