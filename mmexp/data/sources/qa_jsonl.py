"""Question-answer lines: ``{"question_id", "image", "question", "answer" or "answers"}`` and what may be added.

Optional keys: ``choices`` (texts that the answer is a letter of), ``format`` (response-format name), ``family``,
``fields`` (further texts by name, for templates that use them).
"""

from collections import Counter
from pathlib import Path
from typing import Any

from mmexp.data.bad_samples import BadSample
from mmexp.data.choices import LETTERS
from mmexp.data.sources.records import RecordFile, checked_folder, optional_text, text_of
from mmexp.interfaces import Sample, Turn


class QaJsonl:
    """A question-answer dataset, read lazily.

    Args:
        annotations: the JSON-lines file (or a JSON list).
        image_folder: folder that ``image`` is relative to.
        name: of the dataset in the mixture.
        group_by_image: all questions of an image make one sample (LLaVA-1.5 merges VQAv2 and GQA so), in the order of
            the file and of the image's first question; otherwise each line is one.

    Raises:
        UserError: a file or folder is missing; on access ``BadSample`` with file and line.
    """

    def __init__(self, *, annotations: str, image_folder: str, name: str, group_by_image: bool) -> None:
        self.name = name
        self.records = RecordFile(Path(annotations), name)
        self.image_folder = checked_folder(image_folder, name)
        self.groups = _groups(self.records) if group_by_image else [[index] for index in range(len(self.records))]

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> Sample:
        records = [(self.records[line], self.records.origin(line)) for line in self.groups[index]]
        first, origin = records[0]
        image = optional_text(first, "image", origin)
        return Sample(
            id=str(first.get("question_id", index)),
            dataset=self.name,
            image=self.image_folder / image if image else None,
            turns=tuple(qa_turn(record, line_origin) for record, line_origin in records),
            origin=origin,
        )


def qa_turn(record: dict[str, Any], origin: str) -> Turn:
    """A record as an exchange.

    Raises:
        BadSample: a key is missing or of a wrong type, or the answer is not a letter of the choices.
    """
    question, answer = text_of(record, "question", origin), _answer(record, origin)
    return Turn(
        question=question,
        answer=answer,
        response_format=optional_text(record, "format", origin),
        family=optional_text(record, "family", origin) or "",
        choices=_choices(record.get("choices"), answer, origin),
        fields=_fields(record.get("fields"), origin),
    )


def _choices(choices: Any, answer: str, origin: str) -> tuple[str, ...]:
    if choices is None:
        return ()
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
        raise BadSample(origin, f"key 'choices' must be a list of 2 to {len(LETTERS)} texts")
    letters = LETTERS[: len(choices)]
    if len(answer) != 1 or answer not in letters:
        raise BadSample(origin, f"answer '{answer}' is not a letter of its choices, {letters[0]} to {letters[-1]}")
    return tuple(str(choice) for choice in choices)


def _fields(fields: Any, origin: str) -> tuple[tuple[str, str], ...]:
    if fields is None:
        return ()
    if not isinstance(fields, dict) or not all(isinstance(text, str) for text in fields.values()):
        raise BadSample(origin, "key 'fields' must be an object of texts")
    return tuple(fields.items())


def _answer(record: dict[str, Any], origin: str) -> str:
    """``answer``, or the commonest of ``answers`` (the first of those that are equally common)."""
    answers = record.get("answers")
    if "answer" not in record and isinstance(answers, list) and answers and all(isinstance(a, str) for a in answers):
        answer = Counter(text.strip() for text in answers).most_common(1)[0][0]
    else:
        answer = text_of(record, "answer", origin)
    if not answer:
        raise BadSample(origin, "the answer is empty")
    return answer


def _groups(records: RecordFile) -> list[list[int]]:
    """Lines by image. A line that cannot be read, or has no image, is a group of its own; it fails when it is used."""
    groups: dict[Any, list[int]] = {}
    for line in range(len(records)):
        try:
            key = records[line].get("image")
        except BadSample:
            key = None
        groups.setdefault(key if isinstance(key, str) else line, []).append(line)
    return list(groups.values())
