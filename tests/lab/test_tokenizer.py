"""The tokenizer with every template: no unknown word, exact round trip, few tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mmexp.data.template import Template
from mmexp.data.tokenize import ConversationTokenizer
from mmexp.instantiate import instantiate
from mmexp.interfaces import IGNORE_INDEX, IMAGE_TOKEN_ID, Turn
from mmexp.lab.questions import FAMILIES, PRACTICE, Questioner, caption
from mmexp.lab.rng import Rng
from mmexp.lab.tokenizer import build_tokenizer
from mmexp.lab.world import scenes
from tests.lab.making import lab_config, spec, stage_node

TEMPLATES = ("vicuna_v1", "plain", "llama3", "chatml", "qwen")
TURNS = [
    Turn(question="which shape is red?", answer="square", response_format="word"),
    Turn(question="is there a green triangle?", answer="yes", response_format="word"),
]


def templates() -> dict[str, Template]:
    nodes = stage_node("lab_base")["templates"]
    return {name: instantiate(node, name) for name, node in nodes.items()}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Saved and loaded as a user's checkpoint is."""
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(spec(), templates().values()).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def conversation(tokenizer: Any, template: Template, turns: list[Turn]) -> Any:
    tokenize = ConversationTokenizer(
        tokenizer=tokenizer, template=template, num_visual_tokens=lambda size: 4, max_length=512
    )
    return tokenize.conversation(turns, Path("x.png"), (64, 64), "lab", "test")


def test_it_loads_as_a_fast_tokenizer(tokenizer: Any) -> None:
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    special = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.pad_token)
    assert special == ("<s>", "</s>", "<unk>", "<pad>")
    assert tokenizer("red").input_ids[0] == tokenizer.bos_token_id


def test_the_config_of_the_language_model_knows_its_size(tokenizer: Any) -> None:
    assert lab_config()["llm"]["config"]["vocab_size"] == len(tokenizer)


@pytest.mark.parametrize("place", ["after", "before", "none"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_no_template_has_an_unknown_word(tokenizer: Any, name: str, place: str) -> None:
    node = {**stage_node("lab_base")["templates"][name], "format_prompt": place}
    sample = conversation(tokenizer, instantiate(node, name), TURNS)
    text_ids = sample.input_ids[sample.input_ids != IMAGE_TOKEN_ID]
    assert tokenizer.unk_token_id not in text_ids
    assert (sample.input_ids == IMAGE_TOKEN_ID).sum() == 4


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_is_trained_decodes_to_the_answers(tokenizer: Any, name: str) -> None:
    template = templates()[name]
    sample = conversation(tokenizer, template, TURNS)
    trained = sample.labels[sample.labels != IGNORE_INDEX]
    parts = np.split(
        trained, np.flatnonzero(np.isin(trained, tokenizer.encode(template.stop, add_special_tokens=False))) + 1
    )
    answers = [tokenizer.decode(part[:-1], skip_special_tokens=True).strip() for part in parts if len(part)]
    assert answers == ["square", "yes"]


def test_a_question_costs_few_tokens(tokenizer: Any) -> None:
    """BOS, system text and role marker before the image; then newline, question, prompt, marker, answer, end."""
    sample = conversation(tokenizer, templates()["vicuna_v1"], TURNS[:1])
    assert sample.prefix_length == 3 + 4
    assert len(sample.input_ids) == 7 + 1 + 5 + 2 + 2


def test_everything_the_world_says_comes_back(tokenizer: Any) -> None:
    source = scenes(spec(), Rng(0), held_out=False)
    questioner = Questioner(spec(), dict.fromkeys({**FAMILIES, **PRACTICE}, 3), Rng(1))
    texts: list[str] = []
    for number, scene in zip(range(60), source, strict=False):
        texts.append(caption(spec(), scene, Rng(2, number)))
        for turn in questioner.ask(scene):
            texts += [turn.question, turn.answer, *turn.choices]
    for text in set(texts):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.unk_token_id not in ids
        said = tokenizer.decode(ids, skip_special_tokens=True)
        assert said == text if "\n" not in text else said.split() == text.split()  # answers have one line


def test_a_number_is_tens_and_ones(tokenizer: Any) -> None:
    assert tokenizer.tokenize("a sign with 47 at b1") == ["a", "sign", "with", "4", "##7", "at", "b1"]
    assert tokenizer.tokenize("hats") == ["<unk>"]


def test_choices_are_words_it_knows(tokenizer: Any) -> None:
    turn = Turn(question="which shape is red?", answer="B", response_format="letter", choices=("circle", "cross"))
    sample = conversation(tokenizer, templates()["vicuna_v1"], [turn])
    text = tokenizer.convert_ids_to_tokens(sample.input_ids[sample.input_ids != IMAGE_TOKEN_ID].tolist())
    assert "<unk>" not in text and text[text.index("\nA.") :][:4] == ["\nA.", "circle", "\nB.", "cross"]
