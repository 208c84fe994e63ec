"""A benchmark: questions read from QA JSONL, and the scoring of their answers."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmexp.data.choices import LETTERS, choice_lines
from mmexp.errors import UserError
from mmexp.evaluation.metrics import Answers, make_metric, metric_name
from mmexp.interfaces import Turn
from mmexp.model.video.frames import Video, shown


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One question of a benchmark. ``turn.answer`` is the (most frequent) reference; the model never sees it."""

    id: str
    image: Path | None
    turn: Turn
    references: tuple[str, ...]
    choices: tuple[str, ...]
    """Their texts, A first; they also stand below ``turn.question``."""
    origin: str
    """``file:line``."""
    video: Video | None = None
    """What is shown in place of ``image``."""

    @property
    def shown(self) -> str:
        """The image or video it is about, empty without one."""
        return shown(self.video) if self.video is not None else "" if self.image is None else str(self.image)


class Benchmark:
    """Questions with references, and the metric they are scored by.

    A line of ``annotations`` is ``{"question_id", "image", "question", "answer" or "answers", "family", "format",
    "choices"}``. ``answers`` is a list of strings (the annotators of VQA); ``family`` is the label that scores are
    reported by (POPE's and MME's category); ``format`` overrides ``response_format`` for one question; ``choices``
    are laid out below the question as ``A. ...``. The last three are optional; ``image`` may be null.

    Args:
        annotations: QA JSONL file.
        image_folder: folder that ``image`` is relative to.
        metric: config node of the scoring rule (``mmexp.evaluation.metrics``): ``_target_``, and the ``variant`` of it.
        response_format: name of the response-format prompt, or None for none.
        max_new_tokens: longest answer in tokens.
        limit: only the first so many questions; None for all.

    Raises:
        UserError: no such metric or variant of it, a limit below 1.
    """

    aggregation: Any = None
    """What joins the frames of a video; None where questions are about images."""

    def __init__(
        self,
        *,
        annotations: str,
        image_folder: str,
        metric: Mapping[str, Any],
        response_format: str | None,
        max_new_tokens: int,
        limit: int | None,
    ) -> None:
        if limit is not None and limit < 1:
            raise UserError(f"limit: at least 1 question or null for all, not {limit}")
        self.annotations = Path(annotations)
        self.image_folder = Path(image_folder)
        self.metric = make_metric(metric)
        self.metric_node = dict(metric)
        self.response_format = response_format
        self.max_new_tokens = max_new_tokens
        self.limit = limit

    def label(self, name: str) -> str:
        """Name of the folder for further evaluations of the benchmark that is called ``name``."""
        return name if self.aggregation is None else f"{name}-{self.aggregation.label}"

    def check_files(self) -> None:
        """Raises ``UserError`` when the annotations or the image folder are not there."""
        if not self.annotations.is_file():
            raise UserError(f"annotations: no file '{self.annotations}'; see docs of the benchmark, or set paths.data")
        if not self.image_folder.is_dir():
            raise UserError(f"image_folder: no folder '{self.image_folder}'")

    def questions(self) -> list[Question]:
        """All questions, in the order of the file.

        Raises:
            UserError: with file and line: not JSON, a missing or mistyped key, an answer that the metric cannot score,
                an image that is not there; a file without questions, pairs that are incomplete.
        """
        self.check_files()
        questions = list(self._read())
        if not questions:
            raise UserError(f"{self.annotations}: no questions")
        problem = self.metric.group_problem(
            [self.metric.unit(q.id, q.turn.family, q.shown, index) for index, q in enumerate(questions)]
        )
        if problem:
            raise UserError(f"{self.annotations}: {problem}" + (f" (limit is {self.limit})" if self.limit else ""))
        return questions

    def answers(self, questions: Sequence[Question], predictions: Sequence[str]) -> Answers:
        """Score each prediction."""
        scores = [
            self.metric.score(prediction, question.references, question.turn.family, question.choices)
            for question, prediction in zip(questions, predictions, strict=True)
        ]
        return Answers(
            question_ids=[question.id for question in questions],
            families=[question.turn.family for question in questions],
            images=[question.shown for question in questions],
            questions=[question.turn.question for question in questions],
            predictions=list(predictions),
            answers=[question.turn.answer for question in questions],
            scores=np.array(scores, dtype=float),
        )

    def metrics(self, name: str, answers: Answers) -> dict[str, float]:
        """Named numbers of this benchmark, called ``name``, in the order headline, parts."""
        values = self.metric.values(answers, np.ones((1, len(answers))))
        return {metric_name(self.metric, name, key): float(values[key][0]) for key in sorted(values, key=bool)}

    def _read(self) -> Iterator[Question]:
        with self.annotations.open(encoding="utf-8") as file:
            lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
            for count, (number, line) in enumerate(lines):
                if count == self.limit:
                    return
                origin = f"{self.annotations}:{number}"
                for record in self._asked(_record(line, origin), origin):
                    yield self._question(record, origin)

    def _asked(self, record: dict[str, Any], origin: str) -> Iterable[dict[str, Any]]:
        """The records that a line is asked as."""
        return (record,)

    def _question(self, record: Mapping[str, Any], origin: str) -> Question:
        family = str(record.get("family") or "")
        references, choices = _references(record, origin), choices_of(record, origin)
        problem = self.metric.problem(references, family, choices)
        if problem:
            raise UserError(f"{origin}: {problem}")
        return Question(
            id=str(_need(record, "question_id", (str, int), origin)),
            image=self._image(record, origin),
            turn=Turn(
                question="\n".join([_need(record, "question", str, origin), *choice_lines(choices)]),
                answer=Counter(references).most_common(1)[0][0],
                response_format=record.get("format", self.response_format),
                family=family,
            ),
            references=references,
            choices=choices,
            origin=origin,
        )

    def _image(self, record: Mapping[str, Any], origin: str) -> Path | None:
        if "image" in record and record["image"] is None:
            return None
        path = self.image_folder / _need(record, "image", str, origin)
        if not path.is_file():
            raise UserError(f"{origin}: no image '{path}'")
        return path


def _record(line: str, origin: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{origin}: not JSON ({error.msg}, column {error.colno}); one object per line") from None
    if not isinstance(record, dict):
        raise UserError(f"{origin}: a {type(record).__name__}, not an object with 'question_id', 'image', 'question'")
    return record


def _need(record: Mapping[str, Any], key: str, kind: type | tuple[type, ...], origin: str) -> Any:
    if key not in record:
        raise UserError(f"{origin}: no '{key}'; there is {', '.join(record)}")
    if not isinstance(record[key], kind):
        raise UserError(f"{origin}: '{key}' is {json.dumps(record[key])[:60]}, and should be text")
    return record[key]


def _references(record: Mapping[str, Any], origin: str) -> tuple[str, ...]:
    if "answers" not in record:
        return (_need(record, "answer", str, origin),)
    answers = record["answers"]
    if not isinstance(answers, list) or not answers or not all(isinstance(answer, str) for answer in answers):
        raise UserError(f"{origin}: 'answers' is {json.dumps(answers)[:60]}, and should be a list of texts")
    return tuple(answers)


def choices_of(record: Mapping[str, Any], origin: str) -> tuple[str, ...]:
    """Raises ``UserError`` where ``choices`` is no list of 2 to 26."""
    choices = record.get("choices")
    if choices is None:
        return ()
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
        raise UserError(f"{origin}: 'choices' is {json.dumps(choices)[:60]}, and should be a list of 2 to 26 texts")
    return tuple(str(choice) for choice in choices)
