"""OCRBench, relaxed accuracy and ANLS against values obtained from the toolkits' own functions."""

import numpy as np
import pytest

from mmexp.evaluation.metrics import HEADLINE
from mmexp.evaluation.metrics.anls import edit_distance
from mmexp.evaluation.metrics.base import Answers
from mmexp.evaluation.metrics.ocrbench import CATEGORIES, MATH
from tests.rules import make_metric

LMMS, VLME = "lmms_eval", "vlmevalkit"

RELAXED = [
    # reply, reference, lmms, vlme
    ("12", "12", 1, 1),
    ("12.6", "12", 1, 1),
    ("12.61", "12", 0, 0),
    ("11.4", "12", 1, 1),
    ("-12", "12", 0, 0),
    ("12%", "0.12", 1, 1),
    ("12%", "12", 0, 0),
    ("0.12", "12%", 1, 1),
    ("12%%", "12%", 1, 1),
    ("0", "0", 1, 1),
    ("0.0", "0", 0, 0),
    ("0.0001", "0", 0, 0),
    ("1,000", "1000", 0, 0),
    ("1_000", "1000", 1, 1),
    ("\uff11\uff12", "12", 1, 1),
    ("two", "2", 0, 0),
    ("2", "two", 0, 0),
    ("Cat", "cat", 1, 1),
    ("cat\n", "cat", 0, 1),
    ("12\n", "12", 1, 1),
    ("a cat", "cat", 0, 0),
    ("nan", "12", 0, 0),
    ("%", "%", 1, 1),
    ("", "12", 0, 0),
]


@pytest.mark.parametrize(("reply", "reference", "lmms", "vlme"), RELAXED)
def test_relaxed_accuracy(reply, reference, lmms, vlme):
    got = [make_metric("relaxed_accuracy", variant).score(reply, (reference,)) for variant in (LMMS, VLME)]
    assert got == [lmms, vlme]


ANLS = [
    ("cat", ("cat",), 1),
    ("CAT", ("cat",), 1),
    ("cat\n", ("cat",), 1),
    ("the   cat", ("the cat",), 1),
    ("hello wrld", ("hello world",), 10 / 11),
    ("cast", ("cat",), 3 / 4),
    ("caat", ("cat", "caa"), 3 / 4),
    ("ab", ("ac",), 1 / 2),  # the threshold itself counts
    ("abc", ("axy",), 0),
    ("cats    ", ("cat",), 1 - 1 / 8),  # the length is that of the texts as they are
    ("xyz", ("cat", "xyz"), 1),
    ("", ("cat",), 0),
    ("", ("",), 1),
]


@pytest.mark.parametrize(("reply", "references", "score"), ANLS)
def test_anls(reply, references, score):
    assert make_metric("anls", "both").score(reply, references) == pytest.approx(score, abs=1e-12)


def test_edit_distance():
    pairs = [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("flaw", "lawn", 2), ("same", "same", 0)]
    assert [edit_distance(one, other) for one, other, _ in pairs] == [distance for *_, distance in pairs]


SCENE = "Scene Text-centric VQA"
OCR = [
    # category, reply, reference, lmms, vlme
    (SCENE, "The sign says STOP.", "stop", 1, 1),
    (SCENE, "s top", "stop", 0, 0),
    (SCENE, "hello\nworld", "Hello World", 1, 1),
    (SCENE, "112", "12", 1, 1),
    (SCENE, "\uff11\uff12", "12", 1, 0),
    (SCENE, "12", "\uff11\uff12", 1, 0),
    (SCENE, "x\u3000y", "x y", 1, 0),
    (SCENE, "", "12", 0, 0),
    (MATH, "\\frac{a}{b}", "\\frac { a } { b }", 1, 1),
    (MATH, "= \\frac { a }\n{ b } .", "\\frac{a}{b}", 1, 1),
    (MATH, "\\Frac{a}{b}", "\\frac{a}{b}", 0, 0),
    (MATH, "\uff41", "a", 0, 0),
]


@pytest.mark.parametrize(("category", "reply", "reference", "lmms", "vlme"), OCR)
def test_ocrbench(category, reply, reference, lmms, vlme):
    got = [make_metric("ocrbench", variant).score(reply, ("other", reference), category) for variant in (LMMS, VLME)]
    assert got == [lmms, vlme]


def columns(families, scores) -> Answers:
    texts = ["x"] * len(scores)
    return Answers(
        question_ids=texts,
        families=families,
        images=texts,
        questions=texts,
        predictions=texts,
        answers=texts,
        scores=np.array(scores, dtype=float),
    )


def test_ocrbench_points_and_categories():
    found = columns([CATEGORIES[0], CATEGORIES[5], SCENE, MATH], [1, 0, 1, 1])
    metric = make_metric("ocrbench", VLME)
    first, second = (metric.values(found, np.ones((1, 4))) for _ in range(2))
    assert {name: value.item() for name, value in first.items()} == {
        HEADLINE: 75,
        "points": 750,
        "text_recognition": 50,
        "regular_text_recognition": 100,
        "non_semantic_text_recognition": 0,
        "scene_text_centric_vqa": 100,
        "handwritten_mathematical_expression_recognition": 100,
    }
    assert first == second  # lmms-eval's counter would go on
    assert "did you mean 'Doc-oriented VQA'" in str(metric.problem(("x",), "Doc oriented VQA"))
    assert "an empty answer" in str(metric.problem((" ",), SCENE))


@pytest.mark.parametrize(("name", "variant"), [("relaxed_accuracy", LMMS), ("anls", "both"), ("referring", LMMS)])
def test_families_beside_the_mean(name, variant):
    found = columns(["human", "human", "augmented"], [1, 0.5, 0])
    values = make_metric(name, variant).values(found, np.array([[1, 1, 1], [0, 2, 2]]))
    np.testing.assert_allclose(values[HEADLINE], [50, 25])
    np.testing.assert_allclose(values["human"], [75, 50])
