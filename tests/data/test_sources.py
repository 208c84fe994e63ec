"""Readers: what they give, and which file, line and key a broken record is blamed on."""

import json
from pathlib import Path

import pytest

from mmexp.data.bad_samples import BadSample
from mmexp.data.sources.llava_json import LlavaJson
from mmexp.data.sources.qa_jsonl import QaJsonl
from mmexp.errors import UserError
from tests.data.making import llava_record, write_dataset

PAIR = [{"from": "human", "value": "<image>\nred?"}, {"from": "gpt", "value": "yes"}]


def llava(tmp_path: Path, *records, as_list: bool = False, text: str | None = None) -> LlavaJson:
    (tmp_path / "images").mkdir(exist_ok=True)
    path = tmp_path / "data.json"
    lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    path.write_text(
        text if text is not None else json.dumps(list(records), indent=1, ensure_ascii=False) if as_list else lines
    )
    return LlavaJson(annotations=str(path), image_folder=str(tmp_path / "images"), name="mix")


def qa(tmp_path: Path, *records, group_by_image: bool = False) -> QaJsonl:
    (tmp_path / "images").mkdir(exist_ok=True)
    path = tmp_path / "qa.jsonl"
    path.write_text("\n".join(record if isinstance(record, str) else json.dumps(record) for record in records))
    return QaJsonl(
        annotations=str(path), image_folder=str(tmp_path / "images"), name="qa", group_by_image=group_by_image
    )


@pytest.mark.parametrize(("as_list", "origin"), [(True, "data.json[1]"), (False, "data.json:2")])
def test_list_and_lines_are_told_apart_by_content(tmp_path, as_list, origin):
    records = [llava_record(number, questions=number + 1) for number in range(3)]
    records[0]["conversations"][1]["value"] = "caf\u00e9 \U0001f43b \u4f60"
    source = llava(tmp_path, *records, as_list=as_list)
    samples = [source[index] for index in range(len(source))]
    assert [sample.id for sample in samples] == ["0", "1", "2"]
    assert [len(sample.turns) for sample in samples] == [1, 2, 3]
    assert samples[0].turns[0].answer == "caf\u00e9 \U0001f43b \u4f60"
    assert samples[1].origin.endswith(origin)
    assert samples[1].dataset == "mix"
    assert samples[1].image == tmp_path / "images" / "1.png"
    assert samples[1].turns[0].question == "is there a red shape ?"


def test_blank_lines_and_odd_line_ends(tmp_path):
    record = json.dumps(llava_record(7))
    source = llava(tmp_path, text=f"\ufeff{record}\r\n\r\n  \n{record}")
    assert len(source) == 2
    assert source[0].id == source[1].id == "7"
    assert source[1].origin.endswith(":4")
    source = llava(tmp_path, text=f"\ufeff [\r\n{record} ,\r\n {record}\r\n]\r\n")
    assert [source[0].id, source[1].id] == ["7", "7"]


def test_text_only_and_extra_keys(tmp_path):
    human = {"from": "human", "value": " red? ", "format": "word", "family": "colour"}
    sample = llava(tmp_path, {"id": 5, "conversations": [human, {"from": "gpt", "value": " yes\n"}]})[0]
    assert sample.image is None
    turn = sample.turns[0]
    assert (turn.question, turn.answer, turn.response_format, turn.family) == ("red?", "yes", "word", "colour")


@pytest.mark.parametrize("value", ["red?\n<image>", "<image>\nred?", "red?"])
def test_the_image_marker_is_taken_out_wherever_it_stands(tmp_path, value):
    source = llava(tmp_path, {"image": "a.png", "conversations": [{"from": "human", "value": value}, PAIR[1]]})
    assert source[0].turns[0].question == "red?"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"image": "a.png"}, "key 'conversations'"),
        ({"image": "a.png", "conversations": []}, "key 'conversations'"),
        ({"image": ["a.png"], "conversations": PAIR}, "key 'image' must be text, not list"),
        ({"image": "a.png", "conversations": PAIR[:1]}, "1 conversation entries"),
        ({"image": "a.png", "conversations": [*PAIR, PAIR[0]]}, "3 conversation entries"),
        ({"image": "a.png", "conversations": PAIR[::-1]}, r"conversations\[0\] is from 'gpt'.*'human'"),
        ({"image": "a.png", "conversations": [PAIR[0], PAIR[0]]}, r"conversations\[1\] is from 'human'.*'gpt'"),
        ({"image": "a.png", "conversations": ["red?", "yes"]}, r"conversations\[0\] must be an object"),
        ({"image": "a.png", "conversations": [{"from": "human"}, PAIR[1]]}, r"conversations\[0\]: key 'value'"),
        ({"image": "a.png", "conversations": [{"value": "q"}, PAIR[1]]}, r"conversations\[0\]: key 'from'"),
        ({"image": "a.png", "conversations": [PAIR[0], {"from": "gpt", "value": " "}]}, "answer is empty"),
        ({"conversations": PAIR}, "<image> in the question, but the record has no 'image'"),
        ({"image": "a.png", "conversations": [{"from": "human", "value": "<image><image>"}, PAIR[1]]}, "2 times"),
        ({"image": "a.png", "conversations": [*PAIR, *PAIR]}, "<image> outside the first question"),
        ({"image": "a.png", "conversations": [PAIR[0], {"from": "gpt", "value": "<image>"}]}, "outside"),
    ],
)
@pytest.mark.parametrize(("as_list", "origin"), [(True, r"data\.json\[1\]"), (False, r"data\.json:2")])
def test_bad_llava_record(tmp_path, record, message, as_list, origin):
    source = llava(tmp_path, llava_record(0), record, as_list=as_list)
    assert source[0].id == "0"
    with pytest.raises(BadSample, match=f"{origin}: .*{message}"):
        source[1]


def test_broken_json(tmp_path):
    source = llava(tmp_path, text='{"a": 1}\n{"b": \n[1]\n')
    with pytest.raises(BadSample, match=r"data\.json:2: not valid JSON"):
        source[1]
    with pytest.raises(BadSample, match=r"data\.json:3: must be a JSON object, not list"):
        source[2]
    with pytest.raises(UserError, match=r"data\.json\[1\]: not valid JSON"):
        llava(tmp_path, text='[{"a": 1}, {"b": ]')
    with pytest.raises(UserError, match=r"data\.json\[1\]: ',' or ']' is missing"):
        llava(tmp_path, text='[{"a": 1} {"b": 2}]')


def test_missing_files(tmp_path):
    with pytest.raises(UserError, match=r"dataset 'mix': annotations: no such file"):
        LlavaJson(annotations=str(tmp_path / "no.json"), image_folder=str(tmp_path), name="mix")
    path = write_dataset(tmp_path, [llava_record(0)])
    with pytest.raises(UserError, match=r"dataset 'mix': image_folder: no such folder"):
        LlavaJson(annotations=str(path), image_folder=str(tmp_path / "none"), name="mix")
    for empty in ("", "[]", " \n"):
        with pytest.raises(UserError, match="contains no records"):
            llava(tmp_path, text=empty)


def test_qa_turns(tmp_path):
    source = qa(
        tmp_path,
        {"question_id": 3, "image": "a.png", "question": "red?", "answer": "yes", "format": "word", "family": "f"},
        {"image": "a.png", "question": "which?", "choices": ["red", "blue"], "answer": "B", "format": "letter"},
        {"image": "b.png", "question": "many?", "answers": ["2", "two", "two ", "2", "3"]},
        {"question": "no image?", "answer": "no"},
    )
    samples = [source[index] for index in range(4)]
    assert [sample.id for sample in samples] == ["3", "1", "2", "3"]
    assert samples[0].turns[0].family == "f"
    assert samples[1].turns[0].question == "which?"
    assert samples[1].turns[0].choices == ("red", "blue")
    assert samples[1].turns[0].answer == "B"
    assert samples[2].turns[0].answer == "2"
    assert samples[3].image is None


def test_qa_grouped_by_image(tmp_path):
    lines = [("a", "1"), ("b", "2"), (None, "3"), ("a", "4"), (None, "5")]
    records = [
        {"question": f"q{answer}", "answer": answer} | ({"image": f"{image}.png"} if image else {})
        for image, answer in lines
    ]
    source = qa(tmp_path, *records, "{broken", group_by_image=True)
    answers = [[turn.answer for turn in source[index].turns] for index in range(4)]
    assert answers == [["1", "4"], ["2"], ["3"], ["5"]]
    assert len(source) == 5
    with pytest.raises(BadSample, match=r"qa\.jsonl:6: not valid JSON"):
        source[4]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"answer": "yes"}, "key 'question' is missing"),
        ({"question": "q"}, "key 'answer' is missing"),
        ({"question": "q", "answer": 3}, "key 'answer' must be text, not int"),
        ({"question": "q", "answers": [1]}, "key 'answer' is missing"),
        ({"question": "q", "answer": ""}, "answer is empty"),
        ({"question": "q", "answer": "C", "choices": ["x", "y"]}, "answer 'C' is not a letter of its choices, A to B"),
        ({"question": "q", "answer": "AB", "choices": ["x", "y"]}, "answer 'AB'"),
        ({"question": "q", "answer": "A", "choices": ["x"]}, "key 'choices'"),
    ],
)
@pytest.mark.parametrize("group_by_image", [True, False])
def test_bad_qa_record(tmp_path, record, message, group_by_image):
    with pytest.raises(BadSample, match=rf"qa\.jsonl:1: .*{message}"):
        qa(tmp_path, record, group_by_image=group_by_image)[0]
