"""Multiple choice: letters read as each toolkit reads them, and questions that count when all their copies are right.

The expected letters were obtained from the toolkits' own functions (lmms-eval 75571cfe, VLMEvalKit e8e78f05).
"""

import json

import numpy as np
import pytest
from PIL import Image

from mmexp.errors import UserError
from mmexp.evaluation.benchmark import Benchmark
from mmexp.evaluation.circular import CircularBenchmark
from mmexp.evaluation.metrics import HEADLINE, letters
from mmexp.evaluation.metrics.base import Answers
from tests.rules import make_metric, metric_node

PETS = ("cat", "dog", "red car", "bird")
READ = [
    # reply, sole, vlmevalkit, lmms_mmbench, lmms_seed, lmms_scienceqa, llava_scienceqa
    ("B", "B", "B", "B", "B", "B", "B"),
    ("b", None, None, None, "B", "B", None),
    ("B\n", "B", "B", "B", "B", "B", None),
    ("B.", "B", "B", "B", "B", "B", None),
    ("B. cat", "B", "B", "B", "B", "B", "B"),
    ("(B)", "B", "B", "B", "(", None, None),
    ("(C) the cat", "C", "C", "C", "(", None, None),
    ("the answer is B", "B", "B", "B", "T", None, None),
    ("The answer is B.", "B", "B", "B", "T", None, "B"),
    ("The answer is **B**, for it barks and barks", None, "B", "B", "T", None, None),
    ("The answer is C. Or: The answer is D.", None, "C", "D", "T", None, None),
    ("A", "A", "A", "A", "A", "A", "A"),
    ("A cat on a mat", None, "A", "A", "A", None, None),
    ("Because it barks", None, None, "B", "B", None, None),
    ("A or B", None, None, "A", "A", None, None),
    ("B B", None, "B", "B", "B", None, None),
    ("a dog", None, "B", "B", "A", None, None),
    ("a dog, not a cat", None, None, None, "A", None, None),
    ("E", "E", None, "E", "E", "E", "E"),
    ("Z", "Z", "Z", None, "Z", "Z", None),
    ("Cannot determine the answer: B", "B", "Z", "B", "C", None, None),
    ("dog, " * 9, None, None, "B", "D", None, None),
    ("\uff22", None, None, None, "\uff22", "\uff22", None),
    ("", None, None, None, None, None, None),
]
READERS = (
    letters.sole,
    letters.vlmevalkit,
    letters.lmms_mmbench,
    letters.lmms_seed,
    letters.lmms_scienceqa,
    letters.llava_scienceqa,
)


@pytest.mark.parametrize(("reply", *[reader.__name__ for reader in READERS]), READ)
def test_letter_of_a_reply(reply, sole, vlmevalkit, lmms_mmbench, lmms_seed, lmms_scienceqa, llava_scienceqa):
    expected = (sole, vlmevalkit, lmms_mmbench, lmms_seed, lmms_scienceqa, llava_scienceqa)
    assert tuple(reader(reply, PETS) for reader in READERS) == expected


RANKED = [
    ("It could be (A). In the end it is C", "C"),
    ("It could be (A), or is it: (B)", "B"),
    ("A: no. B: no. C) yes", "A"),
    ("I choose between A and D here", "D"),
    ("ABBA", "A"),
]


@pytest.mark.parametrize(("reply", "letter"), RANKED)
def test_the_surest_form_wins_and_then_the_last_place(reply, letter):
    assert letters._lmms_ranked(reply, "ABCD") == letter


def answers(ids, scores, families, images=None) -> Answers:
    texts = ["x"] * len(ids)
    return Answers(
        question_ids=ids,
        families=families,
        images=texts if images is None else images,
        questions=texts,
        predictions=texts,
        answers=texts,
        scores=np.array(scores),
    )


def test_all_copies_must_be_right():
    found = answers(["7", "1000007", "2000007", "8", "1000008"], [1, 1, 0, 1, 1], ["a", "a", "a", "b", "b"])
    for name, variant in (("multiple_choice", "circular"), ("mmbench", "lmms_eval"), ("mmbench", "vlmevalkit")):
        values = make_metric(name, variant).values(found, np.array([[1.0] * 5, [2, 2, 2, 0, 0]]))
        np.testing.assert_allclose(values[HEADLINE], [50, 0])
        np.testing.assert_allclose(values["b"], [100, np.nan])
    exact = make_metric("multiple_choice", "exact").values(found, np.ones((1, 5)))
    np.testing.assert_allclose(exact[HEADLINE], [80])


def test_a_category_of_each_level():
    found = answers(["1", "1#1", "2", "2#1"], [1, 1, 1, 0], ["ocr,FP", "ocr,FP", "color,FP", "color,FP"])
    values = make_metric("mmbench", "vlmevalkit").values(found, np.ones((1, 4)))
    assert {name: value.item() for name, value in values.items()} == {HEADLINE: 50, "ocr": 100, "color": 0, "FP": 50}


def test_exact_takes_the_letter_alone():
    metric = make_metric("multiple_choice", "exact")
    assert [metric.score(reply, ("B",)) for reply in ("B", " b ", "B.", "(B)", "A")] == [1, 1, 0, 0, 0]
    assert make_metric("multiple_choice", "circular").score("(B)", ("B",)) == 1


def test_scienceqa_subsets():
    found = answers(["1", "2", "3"], [1, 0, 1], ["NAT,G1-6", "SOC,G1-6", "NAT"], ["1.png", "", "3.png"])
    values = make_metric("scienceqa", "llava").values(found, np.ones((1, 3)))
    assert {name: round(value.item(), 3) for name, value in values.items()} == {
        HEADLINE: 66.667,
        "NAT": 100,
        "G1-6": 50,
        "SOC": 0,
        "with_image": 100,
        "without_image": 0,
    }
    shown = answers(["1"], [1], [""], ["1.png"])
    assert list(make_metric("scienceqa", "llava").values(shown, np.ones((1, 1)))) == [HEADLINE]


def test_annotations_and_variants():
    metric = make_metric("multiple_choice", "exact")
    assert metric.problem(("B",), "") is None
    assert "must be a letter" in str(metric.problem(("red",), ""))
    assert "must be a letter of its 2 choices" in str(metric.problem(("C",), "", ("cat", "dog")))
    assert "no 'choices'" in str(make_metric("seed", "lmms_eval").problem(("B",), ""))
    with pytest.raises(UserError, match="variant: no 'circula'"):
        make_metric("multiple_choice", "circula")


# ---------------------------------------------------------------- circular evaluation from the stored choices


@pytest.fixture
def make(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")

    def build(records, kind=CircularBenchmark, metric="mmbench", limit=None, families=None):
        path = tmp_path / "annotations.jsonl"
        path.write_text("\n".join(json.dumps({"image": "one.png"} | record) for record in records) + "\n")
        return kind(
            annotations=str(path),
            image_folder=str(tmp_path),
            metric=metric_node(metric, "vlmevalkit"),
            response_format="letter",
            max_new_tokens=4,
            limit=limit,
            **({"families": families} if kind is CircularBenchmark else {}),
        )

    return build


PET = {"question_id": "q", "question": "which?", "choices": ["cat", "dog", "bird"], "answer": "B", "family": "pets"}
COLOR = {"question_id": 7, "question": "what color?", "choices": ["red", "blue"], "answer": "A", "family": "color"}


def test_a_question_is_asked_once_for_each_rotation(make):
    asked = make([PET, COLOR]).questions()
    assert [(question.id, question.turn.answer, question.choices) for question in asked] == [
        ("q", "B", ("cat", "dog", "bird")),
        ("q#1", "A", ("dog", "bird", "cat")),
        ("q#2", "C", ("bird", "cat", "dog")),
        ("7", "A", ("red", "blue")),
        ("7#1", "B", ("blue", "red")),
    ]
    assert asked[1].turn.question == "which?\nA. dog\nB. bird\nC. cat"
    assert len({question.origin for question in asked}) == 2


def test_only_who_follows_the_choices_is_right(make):
    benchmark = make([PET, COLOR])
    asked = benchmark.questions()
    follows = ["It is a dog.", "A", "(C)", "A", "B"]
    always_a = ["A"] * 5
    for predictions, score, pets in ((follows, 100, 100), (always_a, 0, 0), ([*follows[:3], "A", "A"], 50, 100)):
        values = benchmark.metrics("mmb", benchmark.answers(asked, predictions))
        assert (values["mmb"], values["mmb_pets"]) == (score, pets)


def test_the_limit_counts_questions(make):
    assert len(make([PET, COLOR], limit=1).questions()) == 3


def test_only_some_families(make):
    mixed = [PET, {"question_id": "x", "question": "why?", "answer": "red", "family": "open"}, COLOR]
    assert [question.id for question in make(mixed, families=["color"]).questions()] == ["7", "7#1"]
    with pytest.raises(UserError, match="no questions"):
        make(mixed, families=["colour"]).questions()


def test_files_that_are_rotated_already(make):
    copies = [COLOR, COLOR | {"question_id": 1_000_007, "choices": ["blue", "red"], "answer": "B"}]
    benchmark = make(copies, kind=Benchmark)
    assert benchmark.metrics("m", benchmark.answers(benchmark.questions(), ["red", "red"]))["m"] == 100
    with pytest.raises(UserError, match="question 7 stands once, and circular evaluation needs its rotated copies"):
        make(copies[:1], kind=Benchmark).questions()
    with pytest.raises(UserError, match=r":2: question_id '1000007' is that of a rotated copy"):
        make(copies).questions()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"choices": None}, {}, "no 'choices' to rotate"),
        ({"choices": ["one"]}, {}, "should be a list of 2 to 26 texts"),
        ({"answer": "D"}, {}, "the answer must be a letter of its 3 choices, not 'D'"),
        ({"answer": "dog"}, {}, "the answer must be a letter of its 3 choices, not 'dog'"),
        (
            {},
            {"metric": "seed"},
            r"metric: SeedBench \(vlmevalkit\) does not count the rotated copies",
        ),
        (
            {},
            {"metric": "gqa"},
            r"metric: Gqa \(vlmevalkit\) does not count the rotated copies",
        ),
    ],
)
def test_bad_input(make, change, options, message):
    with pytest.raises(UserError, match=message):
        make([PET | change], **options).questions()
