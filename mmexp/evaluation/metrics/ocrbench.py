"""OCRBench (Liu et al. 2023, arXiv 2305.07895): is the answer a part of the reply?

Checked against lmms-eval 75571cfe (`tasks/ocrbench/utils.py`) and VLMEvalKit e8e78f05 (`dataset/image_vqa.py`).
"""

from collections.abc import Sequence

import numpy as np

from mmexp.errors import nearest
from mmexp.evaluation.metrics.base import HEADLINE, Answers, Metric, family_means, weighted_mean

MATH = "Handwritten Mathematical Expression Recognition"
RECOGNITION = (
    "Regular Text Recognition",
    "Irregular Text Recognition",
    "Artistic Text Recognition",
    "Handwriting Recognition",
    "Digit String Recognition",
    "Non-Semantic Text Recognition",
)
CATEGORIES = (*RECOGNITION, "Scene Text-centric VQA", "Doc-oriented VQA", "Key Information Extraction", MATH)
FULL_WIDTH = {ord("\u3000"): " "} | {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
"""Full-width ASCII, and the space that goes with it."""


class OcrBench(Metric):
    """Values: percent of right answers (main number), ``points`` (of 1000, as papers report: one for each right answer
    of its 1000 questions), and in percent ``text_recognition`` (six of the categories) and each category, which is
    ``family`` as the file has it.

    Mathematical expressions are compared without spaces and case-sensitive, all else without case.

    - ``lmms_eval``: full-width ASCII equals ASCII, but not in mathematical expressions.
    - ``vlmevalkit``: full-width characters are their own.

    Deliberate differences: lmms-eval finds mathematical expressions by their source HME100k, here both do it by
    category. Fewer questions than 1000 are scaled up to it; the toolkits divide by 1000 whatever was asked, and
    lmms-eval's counter goes on in a second evaluation. lmms-eval prints 0 to 1, VLMEvalKit 0 to 100.
    """

    def problem(self, references: Sequence[str], family: str, choices: Sequence[str] = ()) -> str | None:
        if family not in CATEGORIES:
            return f"family must be an OCRBench category, not '{family}'; {nearest(family, CATEGORIES)}"
        if not all(reference.strip() for reference in references):
            return "an empty answer is a part of every reply"
        return None

    def score(self, prediction: str, references: Sequence[str], family: str = "", choices: Sequence[str] = ()) -> float:
        said = self._plain(prediction, family)
        return float(any(self._plain(reference, family) in said for reference in references))

    def _plain(self, text: str, family: str) -> str:
        if family == MATH:
            return text.strip().replace("\n", " ").replace(" ", "")
        if self.variant == "lmms_eval":
            text = text.translate(FULL_WIDTH)
        return text.lower().strip().replace("\n", " ")

    def values(self, answers: Answers, weights: np.ndarray) -> dict[str, np.ndarray]:
        mean = weighted_mean(answers.scores, weights)
        out = {HEADLINE: 100 * mean, "points": 1000 * mean}
        recognised = np.isin(np.asarray(answers.families, dtype=object), RECOGNITION)
        if recognised.any():
            out["text_recognition"] = 100 * weighted_mean(answers.scores[recognised], weights[:, recognised])
        for family, value in family_means(answers, weights).items():
            out[family.lower().replace(" ", "_").replace("-", "_")] = value
        return out
