"""Open questions: VQAv2, GQA, OCR-VQA, VSR."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mmexp.errors import UserError
from mmexp.interchange.datasets.base import Record, field, load_json, load_list

TRAIN = 1
"""OCR-VQA's number of the training split."""
VERB = re.compile(r"\b(is|are)\b", re.IGNORECASE)


class VqaV2:
    """The answer is the commonest of the ten annotators', ``multiple_choice_answer``."""

    needs = "folder with v2_OpenEnded_mscoco_train2014_questions.json and v2_mscoco_train2014_annotations.json"

    def records(self, raw: Path) -> Iterator[Record]:
        questions_file = raw / "v2_OpenEnded_mscoco_train2014_questions.json"
        annotations_file = raw / "v2_mscoco_train2014_annotations.json"
        questions = {item["question_id"]: item for item in load_list(questions_file, "questions")}
        for annotation in load_list(annotations_file, "annotations"):
            number = field(annotation, "question_id", str(annotations_file))
            if number not in questions:
                raise UserError(f"{annotations_file}: question_id {number} is not in {questions_file.name}")
            question = questions[number]
            yield {
                "question_id": number,
                "image": f"COCO_train2014_{question['image_id']:012d}.jpg",
                "question": question["question"],
                "answer": field(annotation, "multiple_choice_answer", str(annotations_file)),
                "format": "word",
            }


class Gqa:
    """The short answer; the sentence is kept as field ``full_answer``."""

    needs = "folder with train_balanced_questions.json"

    def records(self, raw: Path) -> Iterator[Record]:
        path = raw / "train_balanced_questions.json"
        for number, item in load_json(path).items():
            where = f"{path}: {number}"
            yield {
                "question_id": number,
                "image": f"{field(item, 'imageId', where)}.jpg",
                "question": field(item, "question", where),
                "answer": field(item, "answer", where),
                "format": "word",
                "fields": {"full_answer": field(item, "fullAnswer", where)},
            }


class OcrVqa:
    """The training split; images are named by the book's key and the extension of its URL."""

    needs = "folder with dataset.json"

    def records(self, raw: Path) -> Iterator[Record]:
        path = raw / "dataset.json"
        for key, book in load_json(path).items():
            where = f"{path}: {key}"
            if field(book, "split", where) != TRAIN:
                continue
            image = key + PurePosixPath(field(book, "imageURL", where)).suffix
            pairs = zip(field(book, "questions", where), field(book, "answers", where), strict=True)
            for place, (question, answer) in enumerate(pairs):
                yield {
                    "question_id": f"{key}_{place}",
                    "image": image,
                    "question": question,
                    "answer": answer,
                    "format": "word",
                }


class Vsr:
    """Captions become questions; images by split and name, ``train2017/000000296471.jpg``."""

    needs = "folder with train.jsonl of the random split"

    def records(self, raw: Path) -> Iterator[Record]:
        path = raw / "train.jsonl"
        if not path.is_file():
            raise UserError(f"no file '{path}'")
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                item, where = _object(line, f"{path}:{number}"), f"{path}:{number}"
                caption = field(item, "caption", where)
                yield {
                    "question_id": number,
                    "image": "/".join(field(item, "image_link", where).split("/")[-2:]),
                    "question": as_question(caption),
                    "answer": "yes" if field(item, "label", where) == 1 else "no",
                    "format": "word",
                    "fields": {"caption": caption},
                }


def as_question(caption: str) -> str:
    """``The cat is on the dish.`` -> ``Is the cat on the dish?``

    The first whole word "is" or "are" goes to the front (the official code splits at every "is", also inside words:
    papers/honeybee.md, section 8, 14); a caption without one is asked as "Is it true that ...".
    """
    text = caption.strip().rstrip(".")
    text = text[:1].lower() + text[1:]
    verb = VERB.search(text)
    if verb is None:
        return f"Is it true that {text}?"
    rest = f"{text[: verb.start()].strip()} {text[verb.end() :].strip()}"
    return f"{verb[1].capitalize()} {rest}?"


def _object(line: str, where: str) -> Record:
    import json

    try:
        return json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON: {error}") from error
