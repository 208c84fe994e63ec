"""Circular evaluation: each question is asked once for every rotation of its choices (MMBench, arXiv 2307.06281)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmexp.data.choices import LETTERS
from mmexp.errors import UserError
from mmexp.evaluation.benchmark import Benchmark, Question, choices_of
from mmexp.evaluation.metrics.choice import COPIES, COPY_MARK, MultipleChoice


class CircularBenchmark(Benchmark):
    """A benchmark whose annotations hold each question once. A question with N ``choices`` is asked N times, its
    choices moved up by 0 to N - 1 places; in the predictions the copies are ``<question_id>``, ``<question_id>#1``, ...
    ``limit`` counts lines of the file, not copies.

    Args:
        families: only questions of these families are asked; None for all. The rest is as for ``Benchmark``.

    Raises:
        UserError: on reading: the metric does not count copies as one, a question without choices, or rotated already.
    """

    def __init__(
        self,
        *,
        families: Sequence[str] | None,
        annotations: str,
        image_folder: str,
        metric: Mapping[str, Any],
        response_format: str | None,
        max_new_tokens: int,
        limit: int | None,
    ) -> None:
        super().__init__(
            annotations=annotations,
            image_folder=image_folder,
            metric=metric,
            response_format=response_format,
            max_new_tokens=max_new_tokens,
            limit=limit,
        )
        self.families = families

    def questions(self) -> list[Question]:
        if not isinstance(self.metric, MultipleChoice) or not self.metric.is_circular:
            raise UserError(
                f"metric: {type(self.metric).__name__} ({self.metric.variant}) does not count the rotated copies of a "
                "question as one; MmBench does, and MultipleChoice with variant: circular"
            )
        return super().questions()

    def _asked(self, record: dict[str, Any], origin: str) -> Iterator[dict[str, Any]]:
        if self.families is not None and record.get("family") not in self.families:
            return
        choices = choices_of(record, origin)
        if not choices:
            raise UserError(f"{origin}: no 'choices' to rotate")
        name, answer = str(record.get("question_id", "")), record.get("answer")
        if COPY_MARK in name or (name.isdecimal() and int(name) >= COPIES):
            raise UserError(f"{origin}: question_id '{name}' is that of a rotated copy; list each question once")
        problem = self.metric.problem((str(answer),), "", choices)
        if problem:
            raise UserError(f"{origin}: {problem}")
        for shift in range(len(choices)):
            rotated = {
                "choices": [*choices[shift:], *choices[:shift]],
                "answer": LETTERS[(LETTERS.index(str(answer)) - shift) % len(choices)],
            }
            yield record | rotated | ({"question_id": f"{name}{COPY_MARK}{shift}"} if shift else {})
