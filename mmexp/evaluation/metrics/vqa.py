"""VQA accuracy (Antol et al. 2015): agreement with ten human answers, each left out once.

Checked against lmms-eval 75571cfe (`tasks/{vqav2,textvqa,vizwiz_vqa}/utils.py`) and VLMEvalKit e8e78f05
(`dataset/utils/vqa_eval.py`, method `vqa_score`).
"""

from collections.abc import Sequence

import numpy as np

from mmexp.evaluation.metrics.base import HEADLINE, Answers, Metric, family_means, weighted_mean
from mmexp.evaluation.metrics.normalize import normalize_vqa, split_possessives

NEEDED_MATCHES = 3
"""So many of the other annotators must have said it for full marks."""


def leave_one_out(matches: int, annotators: int) -> float:
    """Mean over the annotators of min(1, matching others / 3), when ``matches`` of all said what was predicted."""
    among_others = min(1.0, matches / NEEDED_MATCHES)
    if matches == 0:
        return 0.0
    without_one = min(1.0, (matches - 1) / NEEDED_MATCHES)
    return (matches * without_one + (annotators - matches) * among_others) / annotators


class VqaAccuracy(Metric):
    """VQAv2: answers are always normalised (the 2015 script did so only where annotators disagree).

    Variants differ in the normalisation (see ``normalize``). VLMEvalKit has no VQAv2; ``vlmevalkit`` is its VQA rule.
    Values: the mean (main number) and each family's.
    """

    def problem(self, references: Sequence[str], family: str, choices: Sequence[str] = ()) -> str | None:
        if len(references) > NEEDED_MATCHES:
            return None
        return f"'answers' has {len(references)}: full marks need {NEEDED_MATCHES} others (the data sets have 10)"

    def normalize(self, text: str) -> str:
        """An answer as it is compared."""
        return normalize_vqa(text, self.variant)

    def score(self, prediction: str, references: Sequence[str], family: str = "", choices: Sequence[str] = ()) -> float:
        said = self.normalize(prediction)
        return leave_one_out(sum(self.normalize(reference) == said for reference in references), len(references))

    def values(self, answers: Answers, weights: np.ndarray) -> dict[str, np.ndarray]:
        return {HEADLINE: 100 * weighted_mean(answers.scores, weights)} | family_means(answers, weights)


class TextVqaAccuracy(VqaAccuracy):
    """TextVQA and VizWiz: ``lmms_eval`` also drops ``,`` and ``?`` and sets ``'s`` apart, before all else."""

    def normalize(self, text: str) -> str:
        return super().normalize(split_possessives(text) if self.variant == "lmms_eval" else text)
