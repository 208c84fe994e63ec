"""What a metric is: a score for one answer, and from many answers named numbers under question weights.

Weights are how one implementation serves both the result (all ones) and the report's bootstrap (how often each question
was drawn), for any headline: a mean, an F1, or MME's sum over pairs.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mmexp.errors import UserError, nearest

HEADLINE = ""
"""Name of a metric's main number among its values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """Columns of one benchmark in one trial, in the order of its annotations; all of length N."""

    question_ids: Sequence[str]
    families: Sequence[str]
    images: Sequence[str]
    questions: Sequence[str]
    predictions: Sequence[str]
    answers: Sequence[str]
    """The reference; the most frequent one where there are several."""
    scores: np.ndarray  # (N,) float64, 0..1

    def __len__(self) -> int:
        return len(self.predictions)


class Metric(ABC):
    """A benchmark's scoring rule. Holds nothing but the name of its variant."""

    variants: ClassVar[tuple[str, ...]] = ("lmms_eval", "vlmevalkit")
    own_names: ClassVar[bool] = False
    """True: values are reported under their own names; False: behind the benchmark's (``pope_f1``)."""

    def __init__(self, variant: str) -> None:
        if variant not in self.variants:
            raise UserError(f"variant: no '{variant}'; {nearest(variant, self.variants)}")
        self.variant = variant

    def problem(self, references: Sequence[str], family: str, choices: Sequence[str] = ()) -> str | None:
        """What is wrong with a question's annotation, or None."""
        return None

    def group_problem(self, units: Sequence[Hashable]) -> str | None:
        """What is wrong with the questions as a whole, or None."""
        return None

    @abstractmethod
    def score(self, prediction: str, references: Sequence[str], family: str = "", choices: Sequence[str] = ()) -> float:
        """0..1. ``family`` and ``choices`` are the question's, for rules that depend on them."""

    def unit(self, question_id: str, family: str, image: str, index: int) -> Hashable:
        """What is drawn together when questions are resampled: the question itself, or the group it belongs to."""
        return index

    @abstractmethod
    def values(self, answers: Answers, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Named numbers, the main one as ``HEADLINE``, in percent or the benchmark's own scale.

        ``weights`` is (B, N), equal within a unit; each value is (B,), NaN where no question has weight.
        """


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of ``values`` (N,) under each row of ``weights`` (B, N): (B,)."""
    return ratio(weights @ values, weights.sum(axis=1))


def ratio(numerator: np.ndarray, denominator: np.ndarray, empty: float = np.nan) -> np.ndarray:
    """Elementwise; ``empty`` where the denominator is 0."""
    return np.where(denominator != 0, numerator / np.where(denominator != 0, denominator, 1), empty)


def family_means(answers: Answers, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Mean score in percent per family, in the order of first appearance; unnamed families are left out."""
    families = np.asarray(answers.families, dtype=object)
    names = [name for name in dict.fromkeys(answers.families) if name]
    return {name: 100 * weighted_mean(answers.scores[families == name], weights[:, families == name]) for name in names}


def subset_means(answers: Answers, weights: np.ndarray) -> dict[str, np.ndarray]:
    """As ``family_means`` where a question may belong to several subsets, separated by commas; it counts in each."""
    subsets = [[name.strip() for name in family.split(",")] for family in answers.families]
    out = {}
    for name in dict.fromkeys(name for names in subsets for name in names if name):
        inside = np.array([name in names for names in subsets])
        out[name] = 100 * weighted_mean(answers.scores[inside], weights[:, inside])
    return out
