"""Open questions about videos with short answers (MSVD-QA, MSRVTT-QA, ActivityNet-QA), scored without a judge."""

from collections.abc import Sequence

import numpy as np

from mmexp.evaluation.metrics.base import HEADLINE, Answers, Metric, family_means, weighted_mean
from mmexp.evaluation.metrics.normalize import plain


class VideoQa(Metric):
    """Values: accuracy (main number) and each family's.

    - ``exact``: reply and reference are the same without case, ASCII punctuation and outer white space.
    - ``contains``: the reference's words stand in the reply, one after the other, after the same normalisation.

    Deliberate difference to the papers' protocol, where a GPT-3.5 judge says yes or no and gives 0 to 5: that moves by
    about ten points with the judge's version (papers/dense_connector.md, section 2.5) and needs a paid service.
    Synonyms that the judge accepts are wrong here; a long reply that it refuses may be right with ``contains``.
    So these numbers are not those of the papers' tables.
    """

    variants = ("exact", "contains")

    def score(self, prediction: str, references: Sequence[str], family: str = "", choices: Sequence[str] = ()) -> float:
        said, right = plain(prediction), [plain(reference) for reference in references]
        if self.variant == "exact":
            return float(said in right)
        return float(any(f" {reference} " in f" {said} " for reference in right))

    def values(self, answers: Answers, weights: np.ndarray) -> dict[str, np.ndarray]:
        return {HEADLINE: 100 * weighted_mean(answers.scores, weights)} | family_means(answers, weights)
