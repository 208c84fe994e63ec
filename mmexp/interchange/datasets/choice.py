"""Multiple choice: ScienceQA in LLaVA's form, and A-OKVQA."""

import re
from collections.abc import Iterator
from pathlib import Path

from mmexp.data.choices import LETTERS
from mmexp.errors import UserError
from mmexp.interchange.datasets.base import Record, field, load_list

QUESTION = re.compile(r"(?P<question>.+?)\nContext: (?P<context>.*?)\nOptions: (?P<options>.+)", re.DOTALL)
ANSWER = re.compile(r"ANSWER:\s*([A-Z])\.?\s*$")


class ScienceQa:
    """Questions with context and options in one text, the answer after ``###``; half of them have no image."""

    needs = "folder with llava_train_QCM-LEPA.json"

    def records(self, raw: Path) -> Iterator[Record]:
        path = raw / "llava_train_QCM-LEPA.json"
        for place, item in enumerate(load_list(path)):
            where = f"{path}[{place}]"
            asked, answered = (entry["value"] for entry in field(item, "conversations", where)[:2])
            question, context, choices = parse_question(asked, where)
            letter = ANSWER.search(answered.strip())
            if letter is None or letter[1] not in LETTERS[: len(choices)]:
                raise UserError(
                    f"{where}: no 'ANSWER: X.' with one of its {len(choices)} options at the end of the answer"
                )
            yield {
                "question_id": str(item.get("id", place)),
                **({"image": item["image"]} if item.get("image") else {}),
                "question": question,
                "choices": choices,
                "answer": letter[1],
                "format": "letter",
                "fields": {"context": context, "full_question": f"{question}\nContext: {context}"},
            }


def parse_question(text: str, where: str) -> tuple[str, str, list[str]]:
    """(question, context, options) of ``question\\nContext: ...\\nOptions: (A) ... (B) ...``; context may be N/A.

    Raises:
        UserError: the text has another form.
    """
    found = QUESTION.search(text.replace("<image>", "").strip())
    if found is None:
        raise UserError(f"{where}: not 'question, Context:, Options:' but {text[:60]!r}")
    options = [option.strip() for option in re.split(r"\([A-Z]\)", found["options"]) if option.strip()]
    if len(options) < 2:
        raise UserError(f"{where}: options {found['options'][:60]!r} are not '(A) ... (B) ...'")
    return found["question"].strip(), found["context"].strip(), options


class AokVqa:
    """The choices; direct answers and rationales are not used, as in Honeybee."""

    needs = "folder with aokvqa_v1p0_train.json"

    def records(self, raw: Path) -> Iterator[Record]:
        path = raw / "aokvqa_v1p0_train.json"
        for place, item in enumerate(load_list(path)):
            where = f"{path}[{place}]"
            choices, number = field(item, "choices", where), field(item, "correct_choice_idx", where)
            if not 0 <= number < len(choices):
                raise UserError(f"{where}: correct_choice_idx {number} of {len(choices)} choices")
            yield {
                "question_id": field(item, "question_id", where),
                "image": f"{field(item, 'image_id', where):012d}.jpg",
                "question": field(item, "question", where),
                "choices": choices,
                "answer": LETTERS[number],
                "format": "letter",
                "fields": {"full_question": item["question"]},
            }
