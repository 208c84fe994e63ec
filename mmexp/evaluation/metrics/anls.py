"""ANLS, average normalised Levenshtein similarity (Biten et al. 2019, arXiv 1905.13648): DocVQA and InfographicVQA.

Checked against lmms-eval 75571cfe (`api/metrics.py::anls`) and VLMEvalKit e8e78f05 (`dataset/utils/vqa_eval.py`).
"""

from collections.abc import Sequence

import numpy as np

from mmexp.evaluation.metrics.base import HEADLINE, Answers, Metric, family_means, weighted_mean

THRESHOLD = 0.5
"""A lower similarity counts as none."""


def edit_distance(first: str, second: str) -> int:
    """Levenshtein: insertions, deletions and substitutions."""
    row = list(range(len(second) + 1))
    for number, letter in enumerate(first, 1):
        before, row[0] = row[0], number
        for place, other in enumerate(second, 1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (letter != other))
    return row[-1]


def similarity(prediction: str, reference: str) -> float:
    """1 - distance / length: the distance without case and runs of white space, the length of the texts as they are."""
    length = max(len(prediction.upper()), len(reference.upper()))
    if length == 0:
        return 1.0
    first, second = (" ".join(text.lower().split()) for text in (prediction, reference))
    return 1 - edit_distance(first, second) / length


class Anls(Metric):
    """Values: ANLS in percent (main number) and each family's. Of several answers the nearest counts.

    Both toolkits have one rule (lmms-eval reports 0 to 1).
    """

    variants = ("both",)

    def score(self, prediction: str, references: Sequence[str], family: str = "", choices: Sequence[str] = ()) -> float:
        best = max(similarity(prediction, reference) for reference in references)
        return best if best >= THRESHOLD else 0.0

    def values(self, answers: Answers, weights: np.ndarray) -> dict[str, np.ndarray]:
        return {HEADLINE: 100 * weighted_mean(answers.scores, weights)} | family_means(answers, weights)
