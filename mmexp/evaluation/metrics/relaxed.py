"""Relaxed accuracy (ChartQA, Masry et al. 2022, arXiv 2203.10244, section 5.1): numbers may be 5 % off.

Checked against lmms-eval 75571cfe (`tasks/chartqa/utils.py`) and VLMEvalKit e8e78f05 (`dataset/utils/vqa_eval.py`).
"""

from collections.abc import Sequence

import numpy as np

from mmexp.evaluation.metrics.base import HEADLINE, Answers, Metric, family_means, weighted_mean

MAX_RELATIVE_CHANGE = 0.05


def as_number(text: str) -> float | None:
    """A number as Python reads it; with ``%`` at its end a hundredth of it. "1,000" is none."""
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def relaxed(prediction: str, reference: str) -> bool:
    """Both numbers, the reference not 0: within 5 % of it. Else equal texts, case apart."""
    said, true = as_number(prediction), as_number(reference)
    if said is not None and true:
        return abs(said - true) / abs(true) <= MAX_RELATIVE_CHANGE
    return prediction.lower() == reference.lower()


class RelaxedAccuracy(Metric):
    """Values: accuracy (main number) and each family's (``human`` and ``augmented`` of ChartQA).

    - ``lmms_eval``: the reply as it is ("12 " is a number all the same, but "Cat " is not "cat").
    - ``vlmevalkit``: the reply is stripped.
    """

    def score(self, prediction: str, references: Sequence[str], family: str = "", choices: Sequence[str] = ()) -> float:
        said = prediction.strip() if self.variant == "vlmevalkit" else prediction
        return float(any(relaxed(said, reference) for reference in references))

    def values(self, answers: Answers, weights: np.ndarray) -> dict[str, np.ndarray]:
        return {HEADLINE: 100 * weighted_mean(answers.scores, weights)} | family_means(answers, weights)
