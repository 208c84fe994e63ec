"""MME (Fu et al. 2023, arXiv 2306.13394): two yes/no questions per image in 14 categories.

A category's score is accuracy plus accuracy+ (both questions of an image right), at most 200; perception is the sum of
ten categories (at most 2000), cognition of four (800). Checked against lmms-eval 75571cfe (`tasks/mme/utils.py`) and
VLMEvalKit e8e78f05 (`dataset/utils/yorn.py`).
"""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from mmexp.errors import nearest
from mmexp.evaluation.metrics.base import HEADLINE, Answers, Metric, weighted_mean
from mmexp.evaluation.metrics.pope import NO, YES, yes_or_no_word

PERCEPTION = ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "ocr")
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")


def yes_or_no_start(prediction: str) -> str:
    """``yes`` or ``no`` if it is (in) the first four characters, full stops apart; ``y`` and ``n`` alone count."""
    text = prediction.lower().strip().replace(".", "")
    if len(text) == 1:
        return {"y": YES, "n": NO}.get(text, "other")
    return next((word for word in (YES, NO) if word in text[:4]), "other")


class Mme(Metric):
    """Values: ``perception`` + ``cognition`` (the main number), each of the two, and each category by its name.

    - ``lmms_eval``: yes or no in the first four characters; the two questions of an image share their ``question_id``.
    - ``vlmevalkit``: exactly one of the words yes and no, anywhere; the two questions share their image.
    """

    def problem(self, references: Sequence[str], family: str, choices: Sequence[str] = ()) -> str | None:
        if [reference.lower().strip().replace(".", "") for reference in references] not in ([YES], [NO]):
            return f"the answer must be 'yes' or 'no', not {' / '.join(references)!r}"
        if family.lower() not in PERCEPTION + COGNITION:
            return f"family must be an MME category, not '{family}'; {nearest(family.lower(), PERCEPTION + COGNITION)}"
        return None

    def group_problem(self, units: Sequence[Hashable]) -> str | None:
        odd = [unit for unit, count in Counter(units).items() if count != 2]
        if not odd:
            return None
        shared = "question_id" if self.variant == "lmms_eval" else "image"
        return f"MME asks two questions per image, and {odd[0]} has another number; they share family and {shared}"

    def score(self, prediction: str, references: Sequence[str], family: str = "", choices: Sequence[str] = ()) -> float:
        said = yes_or_no_start(prediction) if self.variant == "lmms_eval" else yes_or_no_word(prediction)
        return float(said == references[0].lower().strip().replace(".", ""))

    def unit(self, question_id: str, family: str, image: str, index: int) -> Hashable:
        return (family, question_id if self.variant == "lmms_eval" else image)

    def values(self, answers: Answers, weights: np.ndarray) -> dict[str, np.ndarray]:
        pairs: dict[Hashable, list[int]] = {}
        for index, key in enumerate(zip(answers.question_ids, answers.families, answers.images, strict=True)):
            pairs.setdefault(self.unit(*key, index), []).append(index)
        first, second = (np.array(column) for column in zip(*pairs.values(), strict=True))
        one, other = answers.scores[first], answers.scores[second]
        points = 100 * ((one + other) / 2 + one * other)
        names = np.array([answers.families[index].lower() for index in first], dtype=object)
        out = {
            name: weighted_mean(points[names == name], weights[:, first][:, names == name])
            for name in (*PERCEPTION, *COGNITION)
            if name in names
        }
        nothing = np.zeros(len(weights))
        out["perception"] = sum((out[name] for name in PERCEPTION if name in out), nothing)
        out["cognition"] = sum((out[name] for name in COGNITION if name in out), nothing)
        out[HEADLINE] = out["perception"] + out["cognition"]
        return out
