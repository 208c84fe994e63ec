"""Multiple choice by letter, each question alone or in circular evaluation (papers/honeybee.md, 7.2 and 7.4)."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import ClassVar

import numpy as np

from mmexp.evaluation.metrics import letters
from mmexp.evaluation.metrics.base import HEADLINE, Answers, Metric, subset_means, weighted_mean

COPIES = 1_000_000
"""MMBench numbers the rotated copies of question i as i + 1,000,000, i + 2,000,000, ..."""
COPY_MARK = "#"
"""Stands between the name of a question and the number of a copy that ``CircularBenchmark`` made."""

Reader = Callable[[str, Sequence[str]], str | None]


class MultipleChoice(Metric):
    """Values: accuracy (main number) and that of each subset; ``family`` may name several, separated by commas.

    - ``exact``: the reply is the letter and nothing else, case apart (Honeybee's and LLaVA's SEED-Bench).
    - ``circular``: the reply is read as the one letter among its words, if there is just one; a question counts when
      all its rotated copies are right. For the rules of MMBench's toolkits see ``mmbench``.
    """

    variants: ClassVar[tuple[str, ...]] = ("exact", "circular")
    readers: ClassVar[dict[str, Reader]] = {"exact": letters.exact, "circular": letters.sole}

    @property
    def is_circular(self) -> bool:
        """Whether the rotated copies of a question count as one."""
        return self.variant == "circular"

    def problem(self, references: Sequence[str], family: str, choices: Sequence[str] = ()) -> str | None:
        allowed = letters.LETTERS[: len(choices)] if choices else letters.LETTERS
        if any(len(reference) != 1 or reference not in allowed for reference in references):
            among = f" of its {len(choices)} choices" if choices else ""
            return f"the answer must be a letter{among}, not {' / '.join(references)!r}"
        return None

    def group_problem(self, units: Sequence[Hashable]) -> str | None:
        if not self.is_circular:
            return None
        alone = [unit for unit, count in Counter(units).items() if count == 1]
        if not alone:
            return None
        return (
            f"question {alone[0]} stands once, and circular evaluation needs its rotated copies; "
            "_target_: mmexp.evaluation.circular.CircularBenchmark makes them from its choices"
        )

    def score(self, prediction: str, references: Sequence[str], family: str = "", choices: Sequence[str] = ()) -> float:
        return float(self.readers[self.variant](prediction, choices) in references)

    def unit(self, question_id: str, family: str, image: str, index: int) -> Hashable:
        if not self.is_circular:
            return index
        name = question_id.partition(COPY_MARK)[0]
        return int(name) % COPIES if name.isdecimal() else name

    def values(self, answers: Answers, weights: np.ndarray) -> dict[str, np.ndarray]:
        if self.is_circular:
            answers, weights = self._merged(answers, weights)
        return {HEADLINE: 100 * weighted_mean(answers.scores, weights)} | subset_means(answers, weights)

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


class ReadChoice(MultipleChoice):
    """Base of the rules that also look for the texts of the choices, so that a question must have them."""

    def problem(self, references: Sequence[str], family: str, choices: Sequence[str] = ()) -> str | None:
        if not choices:
            return "no 'choices': their texts are looked for in the reply"
        return super().problem(references, family, choices)
