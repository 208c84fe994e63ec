"""Exact match: GQA as the toolkits score it, and the lab's question families."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from mmexp.evaluation.metrics.base import HEADLINE, Answers, Metric, family_means, weighted_mean
from mmexp.evaluation.metrics.normalize import NO_PUNCTUATION, plain
from mmexp.evaluation.metrics.referring import Referring, box_of


class Gqa(Metric):
    """GQA (Hudson and Manning 2019). Values: accuracy (main number) and each family's.

    - ``lmms_eval`` 75571cfe (`gqa.yaml`, `exact_match_hf_evaluate`): lower case, ASCII punctuation removed; the reply
      is stripped before that and not again.
    - ``vlmevalkit`` e8e78f05 (`vqa_eval.py`, method `accuracy`): lower case and stripped, punctuation counts.
    """

    def score(self, prediction: str, references: Sequence[str], family: str = "", choices: Sequence[str] = ()) -> float:
        if self.variant == "vlmevalkit":
            return float(any(prediction.strip().lower() == reference.strip().lower() for reference in references))
        said = prediction.strip().lower().translate(NO_PUNCTUATION)
        return float(any(said == reference.lower().translate(NO_PUNCTUATION) for reference in references))

    def values(self, answers: Answers, weights: np.ndarray) -> dict[str, np.ndarray]:
        return {HEADLINE: 100 * weighted_mean(answers.scores, weights)} | family_means(answers, weights)


class LabFamily(Metric):
    """Exact match without case and punctuation, per family; the main number is the mean of the families.

    An answer that is a box (``[2 4 4 6]``) is right with an intersection over union of at least 0.5 (``referring``).
    """

    variants = ("exact",)
    own_names = True
    boxes: ClassVar[Metric] = Referring("same_units")

    def problem(self, references: Sequence[str], family: str, choices: Sequence[str] = ()) -> str | None:
        return None if family else "no 'family', and scores are reported by it"

    def score(self, prediction: str, references: Sequence[str], family: str = "", choices: Sequence[str] = ()) -> float:
        if all(box_of(reference) for reference in references):
            return self.boxes.score(prediction, references)
        return float(any(plain(prediction) == plain(reference) for reference in references))

    def values(self, answers: Answers, weights: np.ndarray) -> dict[str, np.ndarray]:
        families = family_means(answers, weights)
        return {HEADLINE: np.mean(list(families.values()), axis=0)} | families
