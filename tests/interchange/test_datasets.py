"""Converters on small samples in the raw files' own form, and what they make read by the real sources."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmexp.cli.convert import main
from mmexp.config import Composer, options
from mmexp.data.sources.llava_json import LlavaJson
from mmexp.data.sources.qa_jsonl import QaJsonl
from mmexp.errors import UserError
from mmexp.interchange.datasets.vqa import as_question

REFCOCO = {
    "images": [
        {
            "file_name": "COCO_train2014_000000519404.jpg",
            "height": 480,
            "width": 640,
            "id": 262407,
            "original_id": 519404,
            "caption": "two woman one in black eatting",
            "dataset_name": "refcocog",
            "tokens_negative": [[0, 30]],
        }
    ],
    "annotations": [
        {
            "area": 97632.2,
            "iscrowd": 0,
            "image_id": 262407,
            "category_id": 1,
            "id": 262407,
            "bbox": [0.0, 45.95, 238.92, 408.64],
            "tokens_positive": [[0, 9]],
            "original_id": 1241542,
        }
    ],
}
CHAT = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cup."}]
RAW: dict[str, dict[str, Any]] = {
    "vqav2": {
        "v2_OpenEnded_mscoco_train2014_questions.json": {
            "info": {},
            "data_subtype": "train2014",
            "questions": [
                {"image_id": 458752, "question": "What is this photo taken looking through?", "question_id": 458752000}
            ],
        },
        "v2_mscoco_train2014_annotations.json": {
            "info": {},
            "data_subtype": "train2014",
            "annotations": [
                {
                    "question_type": "what is this",
                    "multiple_choice_answer": "net",
                    "answers": [{"answer": "net", "answer_confidence": "maybe", "answer_id": 1}],
                    "image_id": 458752,
                    "answer_type": "other",
                    "question_id": 458752000,
                }
            ],
        },
    },
    "gqa": {
        "train_balanced_questions.json": {
            "07333408": {
                "semantic": [{"operation": "select", "dependencies": [], "argument": "wall (722332)"}],
                "entailed": [],
                "equivalent": ["07333408"],
                "question": "What is on the white wall?",
                "imageId": "2375429",
                "isBalanced": True,
                "groups": {"global": "", "local": "14-wall_on,s"},
                "answer": "pipe",
                "semanticStr": "select: wall (722332)",
                "annotations": {"answer": {"0": "722335"}},
                "types": {"detailed": "relS", "semantic": "rel", "structural": "query"},
                "fullAnswer": "The pipe is on the wall.",
            }
        }
    },
    "ocrvqa": {
        "dataset.json": {
            "761183272": {
                "imageURL": "http://ecx.images-amazon.com/images/I/61Y5cOdHJbL.jpg",
                "questions": ["Who wrote this book?", "What is the title of this book?", "What is the genre?"],
                "answers": ["Sandra Boynton", "Mom's Family Wall Calendar 2016", ""],
                "title": "Mom's Family Wall Calendar 2016",
                "authorName": "Sandra Boynton",
                "genre": "Calendars",
                "split": 1,
            },
            "1449460275": {"imageURL": "x.gif", "questions": ["q"], "answers": ["a"], "split": 3},
        }
    },
    "vsr": {
        "train.jsonl": [
            {
                "image": "000000085637.jpg",
                "image_link": "http://images.cocodataset.org/train2017/000000085637.jpg",
                "caption": "The potted plant is at the right side of the bench.",
                "label": 1,
                "relation": "at the right side of",
                "annotator_id": 13,
                "vote_true_validator_id": [20],
                "vote_false_validator_id": [],
            },
            {"image_link": "http://x/val2017/000000000002.jpg", "caption": "The dish contains this.", "label": 0},
        ]
    },
    "sqa": {
        "llava_train_QCM-LEPA.json": [
            {
                "id": "1",
                "conversations": [
                    {
                        "from": "human",
                        "value": "Which state is north?\nContext: N/A\nOptions: (A) West Virginia (B) Oregon",
                    },
                    {"from": "gpt", "value": "LECTURE: Maps.\nSOLUTION: North is up.\n###\nANSWER: A."},
                ],
            },
            {
                "id": "5",
                "image": "5/image.png",
                "conversations": [
                    {"from": "human", "value": "Which?\nContext: Two\nlines.\nOptions: (A) x (B) y (C) z\n<image>"},
                    {"from": "gpt", "value": "SOLUTION: s\n###\nANSWER: C."},
                ],
            },
        ]
    },
    "aokvqa": {
        "aokvqa_v1p0_train.json": [
            {
                "split": "train",
                "image_id": 299207,
                "question_id": "22MexNkBPpdZGX6sxbxVBH",
                "question": "What is the man by the bags awaiting?",
                "choices": ["skateboarder", "train", "delivery", "cab"],
                "correct_choice_idx": 3,
                "direct_answers": ["ride", "ride", "bus"],
                "difficult_direct_answer": False,
                "rationales": ["A train would not be on the street."],
            }
        ]
    },
    "refcoco": {"finetune_refcoco_train.json": REFCOCO},
    "refcocop": {"finetune_refcoco+_train.json": REFCOCO},
    "refcocog": {"finetune_refcocog_train.json": REFCOCO},
    "vgloc": {
        "image_data.json": [
            {"width": 800, "url": "u", "height": 600, "image_id": 1, "coco_id": None, "flickr_id": None}
        ],
        "region_descriptions.json": [
            {
                "id": 1,
                "regions": [
                    {
                        "region_id": 1382,
                        "width": 80,
                        "height": 300,
                        "image_id": 1,
                        "phrase": "the clock is green",
                        "y": 60,
                        "x": 400,
                    },
                    {"region_id": 5, "width": 1, "height": 1, "image_id": 1, "phrase": " ", "y": 0, "x": 0},
                ],
            }
        ],
    },
    "llava150k": {
        "complex_reasoning_77k.json": [{"id": "000000215677", "image": "000000215677.jpg", "conversations": CHAT}],
        "conversation_58k.json": [{"id": "000000033471", "image": "000000033471.jpg", "conversations": CHAT * 1}],
        "detail_23k.json": [{"id": "000000442786", "image": "000000442786.jpg", "conversations": CHAT}],
    },
    "sharegpt": {
        "llava_v1_5_sharegpt40k.json": [
            {
                "id": "a",
                "model": "",
                "conversations": [
                    {"from": "gpt", "value": "cut"},
                    {"from": "human", "value": "Show <image>"},
                    {"from": "gpt", "value": "No."},
                    {"from": "human", "value": "unanswered"},
                ],
            },
            {"id": "b", "conversations": [{"from": "human", "value": "alone"}]},
            {
                "id": "c",
                "conversations": [
                    {"from": "user", "value": "1"},
                    {"from": "assistant", "value": "2"},
                    {"from": "gpt", "value": "3"},
                ],
            },
        ]
    },
}
QA = ("vqav2", "gqa", "ocrvqa", "vsr", "sqa", "aokvqa", "refcoco", "refcocop", "refcocog", "vgloc")


def write_raw(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, value in RAW[name].items():
        lines = "".join(json.dumps(line) + "\n" for line in value) if file.endswith(".jsonl") else json.dumps(value)
        (folder / file).write_text(lines)
    return folder


def converted(tmp_path: Path, name: str) -> Path:
    out = tmp_path / f"{name}.jsonl"
    assert main([name, str(write_raw(tmp_path / "raw", name)), str(out)]) == 0
    return out


def qa(tmp_path: Path, name: str) -> list[Any]:
    source = QaJsonl(
        annotations=str(converted(tmp_path, name)), image_folder=str(tmp_path), name=name, group_by_image=False
    )
    return [source[index] for index in range(len(source))]


def test_every_dataset_of_the_config_has_a_converter_or_shards() -> None:
    with Composer("paper").open() as composer:
        data = composer.compose(["data=honeybee"]).resolved()["data"]["finetune"]
    converters = {name for name in options("converter", "paper") if not name.startswith("mix_")}
    assert set(data["datasets"]) == converters == {*RAW, "coyo100m"} == set(data["tasks"]) == set(data["weights"])
    assert sum(data["weights"].values()) == 39


def test_open_questions(tmp_path: Path) -> None:
    (vqa,) = qa(tmp_path / "1", "vqav2")
    assert vqa.image == tmp_path / "1" / "COCO_train2014_000000458752.jpg"
    assert (vqa.turns[0].question, vqa.turns[0].answer) == ("What is this photo taken looking through?", "net")
    assert vqa.turns[0].response_format == "word"
    (gqa,) = qa(tmp_path / "2", "gqa")
    assert (gqa.image.name, gqa.turns[0].answer) == ("2375429.jpg", "pipe")
    assert dict(gqa.turns[0].fields) == {"full_answer": "The pipe is on the wall."}
    books = qa(tmp_path / "3", "ocrvqa")
    assert [book.image.name for book in books] == ["761183272.jpg"] * 2, "no empty answer, no test split"
    true, false = qa(tmp_path / "4", "vsr")
    assert true.image == tmp_path / "4" / "train2017" / "000000085637.jpg"
    assert true.turns[0].question == "Is the potted plant at the right side of the bench?"
    assert (true.turns[0].answer, false.turns[0].answer) == ("yes", "no")
    assert false.turns[0].question == "Is it true that the dish contains this?"


@pytest.mark.parametrize(
    ("caption", "question"),
    [
        ("The dish is on the table.", "Is the dish on the table?"),
        ("The cats are beside this island.", "Are the cats beside this island?"),
        ("This bus contains the person", "Is it true that this bus contains the person?"),
    ],
)
def test_captions_as_questions(caption: str, question: str) -> None:
    assert as_question(caption) == question


def test_choices(tmp_path: Path) -> None:
    text, seen = qa(tmp_path / "1", "sqa")
    assert text.image is None
    assert text.turns[0].choices == ("West Virginia", "Oregon")
    assert (text.turns[0].question, text.turns[0].answer) == ("Which state is north?", "A")
    assert seen.image == tmp_path / "1" / "5" / "image.png"
    assert (seen.turns[0].choices, seen.turns[0].answer) == (("x", "y", "z"), "C")
    assert dict(seen.turns[0].fields)["full_question"] == "Which?\nContext: Two\nlines."
    (known,) = qa(tmp_path / "2", "aokvqa")
    assert (known.image.name, known.turns[0].answer, known.turns[0].choices[3]) == ("000000299207.jpg", "D", "cab")


@pytest.mark.parametrize("name", ["refcoco", "refcocop", "refcocog"])
def test_expressions(tmp_path: Path, name: str) -> None:
    (sample,) = qa(tmp_path, name)
    assert sample.image.name == "COCO_train2014_000000519404.jpg"
    assert sample.turns[0].answer == "[0.000,0.096,0.373,0.947]"
    assert dict(sample.turns[0].fields) == {
        "phrase": "two woman one in black eatting",
        "bbox": "[0.000,0.096,0.373,0.947]",
    }


def test_regions(tmp_path: Path) -> None:
    (sample,) = qa(tmp_path, "vgloc")
    assert (sample.image.name, sample.turns[0].answer) == ("1.jpg", "[0.500,0.100,0.600,0.600]")
    assert sample.turns[0].question == "the clock is green"


def test_conversations(tmp_path: Path) -> None:
    llava = LlavaJson(
        annotations=str(converted(tmp_path / "1", "llava150k")), image_folder=str(tmp_path), name="llava150k"
    )
    assert [llava[index].id for index in range(3)] == [
        "complex_000000215677",
        "conversation_000000033471",
        "detail_000000442786",
    ]
    assert llava[0].turns[0].question == "What is it?"
    shared = LlavaJson(annotations=str(converted(tmp_path / "2", "sharegpt")), image_folder=str(tmp_path), name="s")
    turns = [[(turn.question, turn.answer) for turn in shared[index].turns] for index in range(len(shared))]
    assert turns == [[("Show image", "No.")], [("1", "2")]]
    assert shared[0].image is None


def test_coyo(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {
        "id": [4896263451343, 1, 2],
        "url": ["https://a/1.jpg", "https://a/2.jpg", "https://a/3.jpg"],
        "text": ["Gray Nissan Cube", "unlike", "third"],
        "width": [600, 1, 1],
        "clip_similarity_vitb32": [0.319336, 0.29, 0.3],
    }
    (tmp_path / "raw").mkdir()
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "raw" / "part-00000.parquet")
    out = tmp_path / "coyo.jsonl"
    assert main(["coyo100m", str(tmp_path / "raw"), str(out)]) == 0
    assert [json.loads(line)["caption"] for line in out.read_text().splitlines()] == ["Gray Nissan Cube", "third"]
    assert json.loads(out.read_text().splitlines()[0])["url"] == "https://a/1.jpg"
    pyarrow.parquet.write_table(pyarrow.table({"id": [1]}), tmp_path / "raw" / "part-00000.parquet")
    with pytest.raises(UserError, match=r"part-00000\.parquet: no column 'clip_similarity_vitb32'"):
        main(["coyo100m", str(tmp_path / "raw"), str(out)])


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("gqa", "train_balanced_questions.json", '{"1": {"imageId": "2"}}', r"questions\.json: 1: no 'question'"),
        ("gqa", "train_balanced_questions.json", "{", r"train_balanced_questions\.json: not JSON"),
        ("vsr", "train.jsonl", "{}\n", r"train\.jsonl:1: no 'caption'"),
        ("vqav2", "v2_OpenEnded_mscoco_train2014_questions.json", '{"questions": []}', "458752000 is not in v2_Open"),
        ("aokvqa", "aokvqa_v1p0_train.json", "{}", r"holds a dict, not a list"),
        ("sqa", "llava_train_QCM-LEPA.json", '[{"conversations": [{"value": "q"}, {"value": ""}]}]', "not 'question"),
        ("vgloc", "image_data.json", "[]", "image 1 is not in image_data.json"),
    ],
)  # fmt: skip
def test_raw_files_that_are_not_what_they_should_be(
    tmp_path: Path, name: str, file: str, content: str, message: str
) -> None:
    raw = write_raw(tmp_path / "raw", name)
    (raw / file).write_text(content)
    out = tmp_path / "out.jsonl"
    out.write_text("before")
    with pytest.raises(UserError, match=message):
        main([name, str(raw), str(out)])
    assert out.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["out.jsonl"]


def test_the_command_names_its_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert all(name in capsys.readouterr().out for name in ["mmexp convert NAME RAW OUT"])
    for arguments, message in (
        (["gqaa", "x", "y"], "no converter 'gqaa'; did you mean 'gqa'"),
        (["gqa", str(tmp_path / "none"), "y"], "needed is a folder with train_balanced_questions.json"),
        (["gqa", "x"], "NAME RAW OUT are needed"),
        (["gqa", str(tmp_path), str(tmp_path / "out")], "no file .*train_balanced_questions.json"),
    ):
        with pytest.raises(UserError, match=message):
            main(arguments)
