"""Multiple choice by letter: SEED-Bench and MMBench as Honeybee scores them (papers/honeybee.md, 7.2 and 7.4)."""

import re
from collections.abc import Hashable, Sequence

import numpy as np

from mmexp.evaluation.metrics.base import HEADLINE, Answers, Metric, family_means, weighted_mean

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
COPIES = 1_000_000
"""MMBench numbers the rotated copies of question i as i + 1,000,000, i + 2,000,000, ..."""


class MultipleChoice(Metric):
    """Values: accuracy (main number) and each family's.

    - ``exact``: the reply is the letter and nothing else, case apart (Honeybee's SEED-Bench).
    - ``circular``: MMBench. The reply is read as the one letter among its words, if there is just one; a question
      counts when all its rotated copies are right. Deliberate difference to the official code: a reply without such a
      letter is wrong, where that draws a letter at random or looks for the options' texts.
    """

    variants = ("exact", "circular")

    def problem(self, references: Sequence[str], family: str) -> str | None:
        if any(len(reference) != 1 or reference not in LETTERS for reference in references):
            return f"the answer must be a letter, not {' / '.join(references)!r}"
        return None

    def score(self, prediction: str, references: Sequence[str]) -> float:
        if self.variant == "exact":
            return float(prediction.strip().upper() in references)
        return float(letter_of(prediction) in references)

    def unit(self, question_id: str, family: str, image: str, index: int) -> Hashable:
        if self.variant == "exact" or not question_id.isdecimal():
            return index
        return int(question_id) % COPIES

    def values(self, answers: Answers, weights: np.ndarray) -> dict[str, np.ndarray]:
        if self.variant == "circular":
            answers, weights = self._merged(answers, weights)
        return {HEADLINE: 100 * weighted_mean(answers.scores, weights)} | family_means(answers, weights)

    def _merged(self, answers: Answers, weights: np.ndarray) -> tuple[Answers, np.ndarray]:
        """One question for all its copies, with the lowest of their scores."""
        copies: dict[Hashable, list[int]] = {}
        for index, (question_id, family, image) in enumerate(
            zip(answers.question_ids, answers.families, answers.images, strict=True)
        ):
            copies.setdefault(self.unit(question_id, family, image, index), []).append(index)
        first = [group[0] for group in copies.values()]
        columns = {
            name: [getattr(answers, name)[index] for index in first]
            for name in ("question_ids", "families", "images", "questions", "predictions", "answers")
        }
        scores = np.array([answers.scores[group].min() for group in copies.values()])
        return Answers(**columns, scores=scores), weights[:, first]


def letter_of(reply: str) -> str | None:
    """The only capital letter that stands alone among the reply's words; an ``A`` in a sentence is an article."""
    words = re.findall(r"[^\s.,:;!?()\[\]'\"]+", reply)
    letters = [word for word in words if len(word) == 1 and word in LETTERS]
    if letters == ["A"] and len(words) > 3:
        return None
    return letters[0] if len(set(letters)) == 1 and len(letters) == 1 else None
