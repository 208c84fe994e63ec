"""LLaVA's format: a JSON list or JSON lines of ``{"id", "image", "conversations": [{"from", "value"}, ...]}``.

Deliberate differences to the official code: questions and answers lose surrounding white space; an odd number of
entries, roles out of order and misplaced image markers are errors rather than being truncated or guessed.
"""

from pathlib import Path
from typing import Any

from mmexp.data.bad_samples import BadSample
from mmexp.data.sources.records import RecordFile, checked_folder, optional_text, text_of
from mmexp.data.template import IMAGE_MARKER
from mmexp.interfaces import Sample, Turn

ROLES = (("human", "user"), ("gpt", "assistant"))


class LlavaJson:
    """A dataset in LLaVA's format, read lazily.

    A human entry may hold ``format`` (response-format name) and ``family``. A record without ``image`` is text only;
    with one, the image belongs to the first question, whether or not ``<image>`` marks it there.

    Args:
        annotations: the JSON or JSONL file.
        image_folder: folder that ``image`` is relative to.
        name: of the dataset in the mixture.

    Raises:
        UserError: a file or folder is missing; on access ``BadSample`` with file and line.
    """

    def __init__(self, *, annotations: str, image_folder: str, name: str) -> None:
        self.name = name
        self.records = RecordFile(Path(annotations), name)
        self.image_folder = checked_folder(image_folder, name)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        origin = self.records.origin(index)
        record = self.records[index]
        image = optional_text(record, "image", origin)
        entries = record.get("conversations")
        if not isinstance(entries, list) or not entries:
            raise BadSample(origin, "key 'conversations' must be a list of entries")
        if len(entries) % 2:
            raise BadSample(origin, f"{len(entries)} conversation entries; each question needs one answer")
        pairs = zip(entries[::2], entries[1::2], strict=True)
        turns = tuple(_turn(number, *pair, image is not None, origin) for number, pair in enumerate(pairs))
        return Sample(
            id=str(record.get("id", index)),
            dataset=self.name,
            image=self.image_folder / image if image else None,
            turns=turns,
            origin=origin,
        )


def _turn(number: int, human: Any, gpt: Any, has_image: bool, origin: str) -> Turn:
    question = _value(human, 2 * number, origin)
    answer = _value(gpt, 2 * number + 1, origin)
    markers = question.count(IMAGE_MARKER)
    if IMAGE_MARKER in answer or (markers and number):
        raise BadSample(origin, f"{IMAGE_MARKER} outside the first question")
    if markers > 1:
        raise BadSample(origin, f"{IMAGE_MARKER} occurs {markers} times; a sample has one image")
    if markers and not has_image:
        raise BadSample(origin, f"{IMAGE_MARKER} in the question, but the record has no 'image'")
    if not answer:
        raise BadSample(origin, f"conversations[{2 * number + 1}]: the answer is empty")
    return Turn(
        question=question.replace(IMAGE_MARKER, "").strip(),
        answer=answer,
        response_format=optional_text(human, "format", origin),
        family=optional_text(human, "family", origin) or "",
    )


def _value(entry: Any, place: int, origin: str) -> str:
    where = f"conversations[{place}]"
    if not isinstance(entry, dict):
        raise BadSample(origin, f"{where} must be an object with 'from' and 'value'")
    role, expected = text_of(entry, "from", origin, f"{where}: "), ROLES[place % 2]
    if role not in expected:
        raise BadSample(origin, f"{where} is from '{role}'; roles must alternate, here '{expected[0]}'")
    return text_of(entry, "value", origin, f"{where}: ")
