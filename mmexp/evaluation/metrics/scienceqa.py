"""ScienceQA (Lu et al. 2022, arXiv 2209.09513): multiple choice, about half of the questions with an image."""

from typing import ClassVar

import numpy as np

from mmexp.evaluation.metrics import letters
from mmexp.evaluation.metrics.base import Answers, weighted_mean
from mmexp.evaluation.metrics.choice import ReadChoice, Reader


class ScienceQa(ReadChoice):
    """Values: accuracy (main number), ``with_image`` and ``without_image`` where both are asked, and that of each
    subset named in ``family`` (NAT, SOC, LAN, TXT, G1-6, ..., separated by commas).

    - ``llava``: A to E alone, "B. ..." or "The answer is B.", else wrong.
    - ``lmms_eval``: the letter alone or "B." at the start.
    - ``vlmevalkit``: a letter, or the text of a choice; what cannot be read is wrong.
    """

    variants = ("llava", "lmms_eval", "vlmevalkit")
    readers: ClassVar[dict[str, Reader]] = {
        "llava": letters.llava_scienceqa,
        "lmms_eval": letters.lmms_scienceqa,
        "vlmevalkit": letters.vlmevalkit,
    }

    def values(self, answers: Answers, weights: np.ndarray) -> dict[str, np.ndarray]:
        out = super().values(answers, weights)
        shown = np.array([bool(image) for image in answers.images])
        if shown.all() or not shown.any():
            return out
        for name, part in (("with_image", shown), ("without_image", ~shown)):
            out[name] = 100 * weighted_mean(answers.scores[part], weights[:, part])
        return out
