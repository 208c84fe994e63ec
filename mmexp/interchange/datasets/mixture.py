"""LLaVA-1.5's 665K file taken apart into its ten sources (papers/llava15.md, section 4): it carries no tag of them.

A record's source follows from its image folder and its response-format prompts; VQAv2 and OKVQA, which share both, are
told apart by OKVQA's own questions.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmexp.errors import UserError, nearest
from mmexp.interchange.datasets.base import Record, field, load_list

MIXTURE = "llava_v1_5_mix665k.json"
OKVQA = "OpenEnded_mscoco_train2014_questions.json"
SOURCES = ("llava", "vqav2", "gqa", "okvqa", "ocrvqa", "aokvqa", "textcaps", "refcoco", "vg", "sharegpt")
BY_FOLDER = {"gqa": "gqa", "ocr_vqa": "ocrvqa", "textvqa": "textcaps", "vg": "vg"}
BY_OKVQA = ("vqav2", "okvqa")
"""Sources that only OKVQA's questions tell apart."""
COCO = "coco"
REGION = ("Provide a short description for this region.", "Provide the bounding box coordinate of the region")
LETTER = "Answer with the option's letter from the given choices directly."
WORD = "Answer the question using a single word or phrase."


class MixtureSource:
    """The records of one source, as they are."""

    def __init__(self, *, source: str) -> None:
        if source not in SOURCES:
            raise UserError(f"source: no '{source}'; {nearest(source, SOURCES)}")
        self.source = source
        self.needs = f"folder with {MIXTURE}" + (f" and OKVQA's {OKVQA}" if source in BY_OKVQA else "")

    def records(self, raw: Path) -> Iterator[Record]:
        path = raw / MIXTURE
        questions: set[str] = set()
        if self.source in BY_OKVQA:
            questions = {field(item, "question", str(raw / OKVQA)) for item in load_list(raw / OKVQA, "questions")}
        for place, item in enumerate(load_list(path)):
            if source_of(item, questions, f"{path}[{place}]") == self.source:
                yield item


def source_of(record: Any, okvqa: set[str], where: str) -> str:
    """One of ``SOURCES``. Without OKVQA's questions its records count as VQAv2's.

    Raises:
        UserError: an image in an unknown folder.
    """
    texts = [field(entry, "value", where) for entry in field(record, "conversations", where)[::2]]
    if not record.get("image"):
        return "sharegpt"
    folder = Path(record["image"]).parts[0]
    if folder in BY_FOLDER:
        return BY_FOLDER[folder]
    if folder != COCO:
        raise UserError(f"{where}: image '{record['image']}' is in none of {COCO}, {', '.join(BY_FOLDER)}")
    asked = "\n".join(texts)
    if any(prompt in asked for prompt in REGION):
        return "refcoco"
    if LETTER in asked:
        return "aokvqa"
    if WORD not in asked:
        return "llava"
    bare = {text.replace("<image>", "").replace(WORD, "").strip() for text in texts}
    return "okvqa" if bare <= okvqa else "vqav2"
