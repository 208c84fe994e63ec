"""LLaVA-1.5's mixture falls into the ten sources that the data config `ladder` names."""

import json
from pathlib import Path

import pytest

from mmexp.cli.convert import main
from mmexp.config import Composer
from mmexp.data.sources.llava_json import LlavaJson
from mmexp.errors import UserError
from mmexp.interchange.datasets.mixture import MIXTURE, OKVQA, SOURCES

WORD = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."


def record(image: str | None, *questions: str) -> dict[str, object]:
    entries = []
    for number, question in enumerate(questions):
        marker = "<image>\n" if image and not number else ""
        entries += [{"from": "human", "value": marker + question}, {"from": "gpt", "value": "red"}]
    return {"id": "1", "conversations": entries} | ({"image": image} if image else {})


RECORDS = {
    "llava": record("coco/train2017/1.jpg", "What are they doing?", "Why?"),
    "vqav2": record("coco/train2017/2.jpg", f"Is it red?\n{WORD}", "What breed is it?"),
    "okvqa": record("coco/train2017/2.jpg", f"What breed is it?\n{WORD}", "Who invented it?"),
    "aokvqa": record("coco/train2017/3.jpg", f"What is it?\nA. x\nB. y\n{LETTER}"),
    "refcoco": record("coco/train2017/4.jpg", "Provide a short description for this region.\n[0.1, 0.2, 0.3, 0.4]"),
    "gqa": record("gqa/images/1.jpg", f"Is it red?\n{WORD}"),
    "ocrvqa": record("ocr_vqa/images/1.jpg", f"Who wrote it?\n{WORD}"),
    "textcaps": record("textvqa/train_images/1.jpg", "Provide a one-sentence caption for the provided image."),
    "vg": record(
        "vg/VG_100K/1.jpg", "a cat\nProvide the bounding box coordinate of the region this sentence describes."
    ),
    "sharegpt": record(None, "Write a poem."),
}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / MIXTURE).write_text(json.dumps(list(RECORDS.values())))
    asked = [{"question": "What breed is it?", "question_id": 1}, {"question": "Who invented it?", "question_id": 2}]
    (tmp_path / OKVQA).write_text(json.dumps({"questions": asked}))
    return tmp_path


def test_every_record_is_in_its_source_and_in_no_other(raw: Path) -> None:
    for source in SOURCES:
        out = raw / f"{source}.jsonl"
        assert main([f"mix_{source}", str(raw), str(out)]) == 0
        assert [json.loads(line) for line in out.read_text().splitlines()] == [RECORDS[source]]
    assert LlavaJson(annotations=str(raw / "vg.jsonl"), image_folder=str(raw), name="vg")[0].turns[0].answer == "red"


def test_the_ladder_has_all_sources() -> None:
    with Composer("paper").open() as composer:
        data = composer.compose(["data=ladder"]).resolved()["data"]["finetune"]
    assert set(data["datasets"]) == set(SOURCES) == set(data["tasks"])
    assert set(data["parts"]) == set(data["tasks"].values())


def test_mistakes(raw: Path) -> None:
    (raw / MIXTURE).write_text(json.dumps([record("sam/images/1.jpg", "Why?")]))
    with pytest.raises(UserError, match=r"mix665k.json\[0\]: image 'sam/images/1.jpg' is in none of coco, gqa"):
        main(["mix_gqa", str(raw), str(raw / "out.jsonl")])
    (raw / OKVQA).unlink()
    with pytest.raises(UserError, match=f"no file '.*{OKVQA}'"):
        main(["mix_vqav2", str(raw), str(raw / "out.jsonl")])
