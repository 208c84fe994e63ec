"""Templates: their exact text, what is trained, where format prompts go."""

import pytest

from mmexp.data.template import Template
from mmexp.errors import UserError
from mmexp.interfaces import Turn
from tests.data.making import CONF, template, turns

WORD = "Answer the question using a single word or phrase."
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
LLAMA3_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
TEXTS = {
    "vicuna_v1": f"{VICUNA_SYSTEM} USER: <image>\nq1 ASSISTANT: a1</s>USER: q2 ASSISTANT: a2</s>",
    "plain": "<image>a1\na2\n",
    "plain_eos": "<image>a1</s>a2</s>",
    "llama3": f"<|start_header_id|>system<|end_header_id|>\n\n{LLAMA3_SYSTEM}<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n<image>\nq1<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\na1<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nq2<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\na2<|eot_id|>",
    "chatml": "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\nq1<|im_end|>"
    "<|im_start|>assistant\na1<|im_end|><|im_start|>user\nq2<|im_end|><|im_start|>assistant\na2<|im_end|>",
    "qwen": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>\nq1<|im_end|>\n"
    "<|im_start|>assistant\na1<|im_end|>\n<|im_start|>user\nq2<|im_end|>\n<|im_start|>assistant\na2<|im_end|>\n",
}
TRAINED = {
    "vicuna_v1": [" a1</s>", " a2</s>"],
    "plain": ["a1\n", "a2\n"],
    "plain_eos": ["a1</s>", "a2</s>"],
    "llama3": ["a1<|eot_id|>", "a2<|eot_id|>"],
    "chatml": ["a1<|im_end|>", "a2<|im_end|>"],
    "qwen": ["a1<|im_end|>", "a2<|im_end|>"],
}


def text(pieces) -> str:
    return "".join(piece.text for piece in pieces)


def test_every_template_is_tested():
    assert sorted(path.stem for path in (CONF / "template").glob("*.yaml")) == sorted(TEXTS)


@pytest.mark.parametrize("name", TEXTS)
def test_text_and_trained_pieces(name):
    pieces = template(name).render(turns(("q1", "a1"), ("q2", "a2")), has_image=True)
    assert text(pieces) == TEXTS[name]
    assert [piece.text for piece in pieces if piece.trained] == TRAINED[name]
    assert [piece.text for piece in pieces if piece.is_image] == ["<image>"]


@pytest.mark.parametrize("name", TEXTS)
def test_prompt_is_what_stands_before_the_first_answer(name):
    conversation = turns(("q1", "a1"))
    for has_image in (True, False):
        pieces = template(name).render(conversation, has_image)
        before = pieces[: [piece.trained for piece in pieces].index(True)]
        assert template(name).prompt(conversation[0], has_image) == before


@pytest.mark.parametrize("name", TEXTS)
def test_without_image_there_is_no_marker(name):
    assert "<image>" not in text(template(name).render(turns(("q1", "a1")), has_image=False))


@pytest.mark.parametrize(
    ("mode", "expected"), [("after", f"red?\n{WORD}"), ("before", f"{WORD} red?"), ("none", "red?")]
)
@pytest.mark.parametrize(
    "turn",
    [
        Turn(question="red?", answer="yes", response_format="word"),
        Turn(question=f"red?\n{WORD}", answer="yes"),
        Turn(question=f"red?\n{WORD}", answer="yes", response_format="word"),
    ],
    ids=["named", "carried by the data", "both"],
)
def test_format_prompt(mode, expected, turn):
    assert template("vicuna_v1", format_prompt=mode).question_text(turn) == expected


def test_the_longest_carried_prompt_counts():
    longest = "When the provided information is insufficient, respond with 'Unanswerable'. " + WORD
    turn = Turn(question=f"red?\n{longest}", answer="yes")
    assert template("vicuna_v1", format_prompt="before").question_text(turn) == f"{longest} red?"


def test_multiple_choice_layout_is_left_alone():
    turn = Turn(question="which?\nA. red\nB. blue", answer="A", response_format="letter")
    assert template("vicuna_v1").question_text(turn) == (
        "which?\nA. red\nB. blue\nAnswer with the option's letter from the given choices directly."
    )


def test_unknown_format_names_the_nearest():
    with pytest.raises(UserError, match=r"'wrd'.*did you mean 'word'"):
        template("vicuna_v1").question_text(Turn(question="q", answer="a", response_format="wrd"))


@pytest.mark.parametrize("pair", [("q <image>", "a"), ("q", "a</s>b"), ("q</s>", "a")])
def test_markers_in_the_text_are_refused(pair):
    with pytest.raises(UserError, match="marker"):
        template("vicuna_v1").render(turns(pair), has_image=True)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"user": "USER: {question}"}, "template.user"),
        ({"answer": "{answer}"}, "template.answer"),
        ({"answer": "</s>"}, "template.answer"),
        ({"opening": ""}, "template.opening"),
        ({"format_prompt": "affter"}, "did you mean 'after'"),
        ({"stop": ""}, "template.answer"),
    ],
)
def test_a_layout_that_cannot_work_is_refused(change, key):
    with pytest.raises(UserError, match=key):
        template("vicuna_v1", **change)


def test_no_opening_without_system_text():
    pieces = template("qwen", system=None).prompt(Turn(question="q", answer=""), has_image=False)
    assert text(pieces) == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"


def test_template_is_a_value():
    assert template("plain") == template("plain")
    assert isinstance(template("plain"), Template)
