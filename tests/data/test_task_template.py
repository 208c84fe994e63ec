"""Wordings: the published texts where they belong, drawn per conversation, choices shuffled without harm."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmexp.config import Composer
from mmexp.data.choices import LETTERS, shuffled
from mmexp.data.order import generator
from mmexp.data.task_template import TaskTemplate
from mmexp.data.turns import GroupedTurns
from mmexp.errors import UserError
from mmexp.instantiate import instantiate
from mmexp.interfaces import Turn

SYSTEM = "The following is a conversation between a curious human and AI assistant."
WORD = "Answer the question using a single word or phrase. "
RECORDS = {
    "vqav2": Turn(question="Is it red?", answer="yes"),
    "gqa": Turn(question="Is it red?", answer="yes"),
    "ocrvqa": Turn(question="Who wrote it?", answer="Eve"),
    "vsr": Turn(question="Is the cat on the mat?", answer="no"),
    "sqa": Turn(
        question="Which?", answer="B", choices=("x", "y"), fields=(("context", "N/A"), ("full_question", "Which?"))
    ),
    "aokvqa": Turn(question="Which?", answer="A", choices=("x", "y", "z"), fields=(("full_question", "Which?"),)),
    **{
        name: Turn(question="cup", answer="[0.1]", fields=(("phrase", "cup"), ("bbox", "[0.1]")))
        for name in ("refcoco", "refcocop", "refcocog", "vgloc")
    },
}


@pytest.fixture(scope="module")
def templates() -> dict[str, TaskTemplate]:
    """Shipped templates of scale paper over Honeybee's data."""
    names = ("", "_released", "_coarse", "_multi", "_multi_flip", "_dataset_name", "_task_name", "_indicator")
    with Composer("paper").open() as composer:
        return {
            f"honeybee{name}": instantiate(
                composer.compose([f"template=honeybee{name}", "data=honeybee"]).resolved()["template"], "template"
            )
            for name in names
        }


def rng(number: int = 0) -> np.random.Generator:
    return generator(0, "test", number)


def text(template: TaskTemplate, dataset: str, *turns: Turn, has_image: bool = True, number: int = 0) -> str:
    worded = template.word(turns, dataset, rng(number))
    return "".join(piece.text for piece in template.layout(dataset).render(worded, has_image))


def test_the_released_layout(templates: dict[str, TaskTemplate]) -> None:
    template = templates["honeybee"]
    two = text(template, "gqa", RECORDS["gqa"], Turn(question="What is it?", answer="a cup"))
    assert two == (
        f"{SYSTEM}\nHuman: <image>\nHuman: {WORD}Is it red?\nAI: yes</s>\nHuman: {WORD}What is it?\nAI: a cup</s>"
    )
    detail = " The assistant gives helpful, detailed, and polite answers to the user's questions."
    assert text(template, "sharegpt", Turn(question="Hi", answer="Hello"), has_image=False) == (
        f"{SYSTEM}{detail}\nHuman: Hi\nAI: Hello</s>"
    )
    caption = Turn(question="Describe it.", answer="a cup")
    assert text(template, "coyo100m", caption) == "<image>a cup</s>", "captions have no words"
    assert text(templates["honeybee_indicator"], "gqa", RECORDS["gqa"]).startswith(
        f"{SYSTEM}\nHuman: <img><image></img>\nHuman: {WORD}"
    )


def test_published_wordings(templates: dict[str, TaskTemplate]) -> None:
    template = replace(templates["honeybee"], shuffle_options=False)
    options = "There are several options:\nA. x\nB. y"
    letter = "Answer with the option's letter from the given choices directly. Which?\n"
    assert template.word([RECORDS["sqa"]], "sqa", rng())[0].question == f"{letter}Context: N/A\n{options}\n"
    assert template.word([RECORDS["aokvqa"]], "aokvqa", rng())[0].question == f"{letter}{options}\nC. z\n"
    assert template.word([RECORDS["vsr"]], "vsr", rng())[0].question == (
        f"{WORD}Is the cat on the mat? Please answer yes or no."
    )
    boxes = {template.word([RECORDS["vgloc"]], "vgloc", rng(n))[0].question for n in range(20)}
    assert boxes == {
        "Provide the bounding box coordinate of the region this sentence describes: cup",
        "Provide a short description for this region: [0.1]",
    }
    released = templates["honeybee_released"]
    boxes = {released.word([RECORDS["vgloc"]], "vgloc", rng(n))[0].question for n in range(20)}
    assert boxes == {
        "Provide the bounding box coordinate of the region this sentence describes. cup",
        "Provide a short description for this region. [0.1]",
    }


def test_every_wording_of_every_template_fits_its_dataset(templates: dict[str, TaskTemplate]) -> None:
    boxes = ("refcoco", "refcocop", "refcocog", "vgloc")
    numbers = {"honeybee_multi": {10}, "honeybee_multi_flip": {10}}
    for name, template in templates.items():
        assert set(template.wordings) <= {*template.tasks, *template.tasks.values()}, name
        for dataset, turn in RECORDS.items():
            still = replace(template, shuffle_options=False)
            worded = [still.word([turn], dataset, rng(number))[0] for number in range(100)]
            assert len({turn.question for turn in worded}) in numbers.get(name, {1, 2}), (name, dataset)
            flipped = [one for one in worded if one.answer == turn.question and dataset not in boxes]
            assert bool(flipped) == (name == "honeybee_multi_flip" and dataset not in boxes), (name, dataset)


def test_one_wording_for_all_turns_of_a_conversation(templates: dict[str, TaskTemplate]) -> None:
    for number in range(20):
        worded = templates["honeybee_multi"].word([RECORDS["gqa"]] * 5, "gqa", rng(number))
        assert len({turn.question for turn in worded}) == 1


def test_identifiers(templates: dict[str, TaskTemplate]) -> None:
    assert templates["honeybee_dataset_name"].word([RECORDS["gqa"]], "gqa", rng())[0].question == "[gqa] Is it red?"
    assert templates["honeybee_task_name"].word([RECORDS["gqa"]], "gqa", rng())[0].question == "[vqa_open] Is it red?"


def test_benchmarks_are_asked_as_in_training(templates: dict[str, TaskTemplate]) -> None:
    question = Turn(question="Is it red?", answer="yes", response_format="word", family="color")

    def asked(name: str, turn: Turn) -> str:
        return "".join(piece.text for piece in templates[name].prompt(turn, True))

    start = f"{SYSTEM}\nHuman: <image>\nHuman: "
    assert asked("honeybee", question) == f"{start}{WORD}Is it red?\nAI:"
    assert asked("honeybee_dataset_name", question) == f"{start}[vqav2] Is it red?\nAI:"
    assert asked("honeybee_dataset_name", replace(question, family="gqa")) == f"{start}[gqa] Is it red?\nAI:"
    letter = Turn(question="Which?\nA. x", answer="A", response_format="letter")
    assert asked("honeybee", letter) == (
        f"{start}Answer with the option's letter from the given choices directly. Which?\nA. x\nAI:"
    )


def test_shuffled_choices_keep_the_right_answer_and_the_stored_sample() -> None:
    stored = Turn(question="q", answer="C", choices=("same", "other", "same", "right"))
    seen = set()
    for number in range(50):
        turn = shuffled(stored, rng(number))
        assert sorted(turn.choices) == sorted(stored.choices)
        assert turn.choices[LETTERS.index(turn.answer)] == "same"
        seen.add((turn.choices, turn.answer))
    assert stored == Turn(question="q", answer="C", choices=("same", "other", "same", "right"))
    assert len(seen) > 10


def test_a_field_that_the_dataset_lacks(templates: dict[str, TaskTemplate]) -> None:
    with pytest.raises(UserError, match=r"wordings\.sqa\[0\]\.ask: names the field 'context', which the dataset lacks"):
        templates["honeybee"].word([RECORDS["aokvqa"]], "sqa", rng())
    with pytest.raises(UserError, match=r"wordings\.gqa\[0\]: must have the keys ask and reply"):
        replace(templates["honeybee"], wordings={"gqa": [{"ask": "{question}"}]})
    with pytest.raises(UserError, match="none is for a dataset or task of the data"):
        replace(templates["honeybee"], wordings={"gqaa": []})


# ---------------------------------------------------------------- turns


def grouped(**changes: Any) -> GroupedTurns:
    values = {"grouped": ["gqa", "vqav2"], "max_turns": 3, "deduplicate": ["gqa"], "conversations": "all"}
    return GroupedTurns(**{**values, **changes})


ASKED = [Turn(question=str(number), answer=answer) for number, answer in enumerate("a b a c b a d".split())]


def test_one_of_each_target_in_chunks() -> None:
    seen = set()
    for number in range(40):
        chunks = grouped().split(ASKED, "gqa", rng(number))
        assert [[turn.answer for turn in chunk] for chunk in chunks] == [["a", "b", "c"], ["d"]]
        seen.add(tuple(turn.question for turn in chunks[0]))
    assert seen == {(a, b, "3") for a in "025" for b in "14"}, "another one of the repeated targets each time"


def test_without_deduplication_and_without_grouping() -> None:
    assert [len(chunk) for chunk in grouped().split(ASKED, "vqav2", rng())] == [3, 3, 1]
    assert grouped().split(ASKED, "llava150k", rng()) == [ASKED]
    assert grouped(max_turns=None).split(ASKED, "vqav2", rng()) == [ASKED]
    assert [len(chunk) for chunk in grouped(max_turns=1).split(ASKED, "vqav2", rng())] == [1] * 7


def test_one_chunk_at_each_visit() -> None:
    one = grouped(conversations="one")
    drawn = [one.split(ASKED, "vqav2", rng(number)) for number in range(30)]
    assert {len(chunks) for chunks in drawn} == {1}
    assert {chunks[0][0].question for chunks in drawn} == {"0", "3", "6"}


def test_choices_are_targets_by_text() -> None:
    first = Turn(question="1", answer="A", choices=("cup", "dog"))
    same = Turn(question="2", answer="B", choices=("dog", "cup"))
    other = Turn(question="3", answer="A", choices=("dog", "cup"))
    (kept,) = grouped().split([first, same, other], "gqa", rng())
    assert len(kept) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_turns": 0}, r"turns\.max_turns: 0"),
        ({"conversations": "al"}, r"turns\.conversations: unknown 'al'; did you mean 'all'"),
        ({"deduplicate": ["vqa"]}, r"turns\.deduplicate: 'vqa' is not grouped; did you mean 'vqav2'"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        grouped(**changes)


def test_what_varies_is_read_anew_at_each_position(tmp_path: Path) -> None:
    """Through the reader: the same position reads the same, other positions differ, workers need no state."""
    from tests.data.making import llava_record, write_dataset
    from tests.data.test_loader import data_node, windows

    node = data_node(write_dataset(tmp_path, [llava_record(0, questions=6)]), batch_size=1)
    node["turns"] = {
        "_target_": "mmexp.data.turns.GroupedTurns",
        "grouped": ["mix"],
        "max_turns": 1,
        "deduplicate": [],
        "conversations": "one",
    }
    lengths = [windows(node)[step].batches[0].input_ids.shape[1] for step in range(20)]
    assert len(set(lengths)) > 2
    fresh = windows(node)
    assert [fresh[step].batches[0].input_ids.shape[1] for step in reversed(range(20))] == lengths[::-1]
