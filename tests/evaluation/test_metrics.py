"""Scoring rules against values obtained from the toolkits' own functions (lmms-eval 75571cfe, VLMEvalKit e8e78f05)."""

from typing import Any

import numpy as np
import pytest

from mmexp.errors import UserError
from mmexp.evaluation import metrics
from mmexp.evaluation.metrics import FORMER_NAMES, HEADLINE, Answers, metric_name
from mmexp.evaluation.metrics.normalize import contractions, normalize_vqa, plain
from mmexp.evaluation.metrics.vqa import leave_one_out
from mmexp.instantiate import locate
from tests.rules import make_metric, metric_node

LMMS, VLME = "lmms_eval", "vlmevalkit"


def table(rows):
    """Answers from rows (question_id, family, prediction, answer), scored by nobody yet."""
    ids, families, predictions, answers = zip(*rows, strict=True)
    return ids, families, predictions, answers


def values(metric, rows, weights=None):
    ids, families, predictions, answers = table(rows)
    scores = np.array([metric.score(said, [true]) for said, true in zip(predictions, answers, strict=True)])
    columns = Answers(
        question_ids=ids,
        families=families,
        images=ids,
        questions=[""] * len(ids),
        predictions=predictions,
        answers=answers,
        scores=scores,
    )
    weights = np.ones((1, len(ids))) if weights is None else np.asarray(weights, dtype=float)
    return {name: value.tolist() for name, value in metric.values(columns, weights).items()}


YES_NO = [
    # reply, reference, POPE (lmms, vlme), MME (lmms, vlme)
    ("yes", "Yes", 1, 1, 1, 1),
    ("Yes.", "yes", 0, 1, 1, 1),
    (" YES \n", "yes", 1, 1, 1, 1),
    ("yes, it is", "yes", 0, 1, 1, 1),
    ("No, not yes", "no", 0, 0, 1, 0),
    ("not sure", "no", 0, 0, 1, 0),
    ("n.", "no", 0, 0, 1, 0),
    ("y", "yes", 0, 0, 1, 0),
    ("it is: yes", "yes", 0, 1, 0, 1),
    ("eyes", "yes", 0, 0, 1, 0),
    ("no-one", "no", 0, 1, 1, 1),
    ("", "no", 0, 0, 0, 0),
    ("B. cat", "no", 0, 0, 0, 0),
]


@pytest.mark.parametrize(("reply", "reference", "pope_lmms", "pope_vlme", "mme_lmms", "mme_vlme"), YES_NO)
def test_yes_no_reading(reply, reference, pope_lmms, pope_vlme, mme_lmms, mme_vlme):
    got = [make_metric(name, variant).score(reply, [reference]) for name in ("pope", "mme") for variant in (LMMS, VLME)]
    assert got == [pope_lmms, pope_vlme, mme_lmms, mme_vlme]


GQA = [
    ("Yes.", "yes", 1, 0),
    ("a dog", "dog", 0, 0),
    ("cat\n", "cat", 1, 1),
    ("t-shirt", "tshirt", 1, 0),
    ("cat .", "cat", 0, 0),
    ("Cat", " cat", 0, 1),
    ("\uff11\uff12", "12", 0, 0),
    ("", "no", 0, 0),
]


@pytest.mark.parametrize(("reply", "reference", "lmms", "vlme"), GQA)
def test_gqa(reply, reference, lmms, vlme):
    assert [make_metric("gqa", variant).score(reply, [reference]) for variant in (LMMS, VLME)] == [lmms, vlme]


NORMAL = [
    # text, lmms, vlme
    ("Yes.", "yes", "yes"),
    ("A dog!", "dog", "dog"),
    ("two", "2", "2"),
    ("none", "0", "0"),
    ("1,000", "1000", "1000"),
    ("1,,000", "1000", "1 000"),
    ("3.", "3", "3."),
    ("3.5", "3.5", "3.5"),
    ("dont", "don't", "don't"),
    ("couldnt've", "couldn't've", "couldn't've"),
    ("somebody'd", "somebodyd", "somebodyd"),
    ("a/b", "b", "b"),
    ("well-known", "well known", "well known"),
    ("well - known", "well known", "well known"),
    ("x -y-z", "x yz", "x yz"),
    ("(B)", "b", "b"),
    ("12%", "12%", "12%"),
    ("cat\n", "cat", "cat"),
    ("a\tcat", "cat", "cat"),
    ("." * 40, "." * 8, "." * 8),
    ("", "", ""),
    ("St. John's", "st john's", "st john's"),
]


@pytest.mark.parametrize(("text", "lmms", "vlme"), NORMAL)
def test_vqa_normalisation(text, lmms, vlme):
    assert [normalize_vqa(text, variant) for variant in (LMMS, VLME)] == [lmms, vlme]


def test_contractions_have_all_misspellings():
    assert len(contractions()) == 114
    assert contractions()["y'alld've"] == "y'all'd've"
    assert contractions()["ow's'at"] == "'ow's'at"


TEN = ["dog", "dog", "a dog", "Dog.", "cat", "cat", "puppy", "puppy's", "1,000", "two"]
VQA = [
    # reply, vqav2 (lmms, vlme), textvqa (lmms, vlme)
    ("dog", 1.0, 1.0, 1.0, 1.0),
    ("the Dog", 1.0, 1.0, 1.0, 1.0),
    ("cat", 0.6, 0.6, 0.6, 0.6),
    ("puppy", 0.3, 0.3, 0.3, 0.3),
    ("puppy 's", 0.0, 0.0, 0.3, 0.0),
    ("2", 0.3, 0.3, 0.3, 0.3),
    ("1000", 0.3, 0.3, 0.3, 0.3),
    ("cat, dog", 0.0, 0.0, 0.0, 0.0),
    ("", 0.0, 0.0, 0.0, 0.0),
]


@pytest.mark.parametrize(("reply", "v_lmms", "v_vlme", "t_lmms", "t_vlme"), VQA)
def test_vqa_accuracy(reply, v_lmms, v_vlme, t_lmms, t_vlme):
    got = [make_metric(name, variant).score(reply, TEN) for name in ("vqav2", "textvqa") for variant in (LMMS, VLME)]
    assert got == pytest.approx([v_lmms, v_vlme, t_lmms, t_vlme], abs=1e-12)


def test_leave_one_out():
    assert [leave_one_out(n, 10) for n in (0, 1, 2, 3, 4, 10)] == pytest.approx([0, 0.3, 0.6, 0.9, 1, 1])
    assert leave_one_out(1, 1) == 0


POPE_ROWS = [
    ("1", "random", "yes", "Yes"),
    ("2", "random", "no", "no"),
    ("3", "random", "maybe", "yes"),
    ("4", "popular", "yes", "no"),
    ("5", "popular", "yes", "yes"),
    ("6", "popular", "no", "yes"),
]


def test_pope_values_differ_where_the_toolkits_do():
    lmms, vlme = (values(make_metric("pope", variant), POPE_ROWS) for variant in (LMMS, VLME))
    assert lmms["accuracy"] == vlme["accuracy"] == [50]
    assert lmms["precision"] == vlme["precision"] == pytest.approx([100 * 2 / 3])
    # An unreadable reply to a "yes" question is a miss for VLMEvalKit only.
    assert lmms["recall"] == pytest.approx([100 * 2 / 3])
    assert vlme["recall"] == pytest.approx([50])
    assert lmms[HEADLINE] == lmms["f1"] == pytest.approx([100 * 2 / 3])
    assert vlme[HEADLINE] == pytest.approx([100 * 4 / 7])
    # lmms-eval's yes ratio is that of the labels.
    assert lmms["yes_ratio"] == pytest.approx([100 * 4 / 6])
    assert lmms["predicted_yes_ratio"] == vlme["yes_ratio"] == [50]
    assert vlme["random"] == vlme["random_f1"] == pytest.approx([100 * 2 / 3])
    assert vlme["popular_accuracy"] == pytest.approx([100 / 3])


def test_pope_question_of_two_categories_counts_in_both():
    rows = [("1", "random,popular", "yes", "yes"), ("2", "random", "yes", "no")]
    got = values(make_metric("pope", VLME), rows)
    assert got["random_accuracy"] == [50]
    assert got["popular_accuracy"] == [100]
    assert got["accuracy"] == pytest.approx([100 * 2 / 3])


def test_pope_constant_answers_do_not_divide_by_zero():
    rows = [("1", "random", "no", "yes"), ("2", "random", "no", "no")]
    got = values(make_metric("pope", LMMS), rows)
    assert (got["f1"], got["precision"], got["recall"]) == ([0], [0], [0])


MME_ROWS = [
    ("a", "existence", "yes", "Yes"),
    ("b", "existence", "yes", "yes"),
    ("a", "existence", "no", "no"),
    ("b", "existence", "yes", "no"),
    ("c", "OCR", "no", "no"),
    ("c", "OCR", "yes", "yes"),
    ("d", "code_reasoning", "no", "yes"),
    ("d", "code_reasoning", "yes", "no"),
]


@pytest.mark.parametrize("variant", [LMMS, VLME])
def test_mme_adds_accuracy_and_accuracy_plus(variant):
    got = values(make_metric("mme", variant), MME_ROWS)
    assert got["existence"] == [75 + 50]
    assert got["ocr"] == [200]
    assert got["perception"] == [325]
    assert got["cognition"] == got["code_reasoning"] == [0]
    assert got[HEADLINE] == [325]


def test_mme_pairs():
    metric = make_metric("mme", LMMS)
    units = [metric.unit(row[0], row[1], "same.png", index) for index, row in enumerate(MME_ROWS)]
    assert metric.group_problem(units) is None
    assert "two questions per image" in metric.group_problem(units[:-1])
    assert metric.unit("x", "OCR", "1.png", 0) != make_metric("mme", VLME).unit("x", "OCR", "1.png", 0)


def test_lab_headline_is_the_mean_of_the_families():
    rows = [
        ("1", "count", "Two.", "two"),
        ("2", "count", "3", "two"),
        ("3", "count", "x", "y"),
        ("4", "color", "Red ", "red"),
    ]
    got = values(make_metric("lab_family", "exact"), rows)
    assert got["count"] == pytest.approx([100 / 3])
    assert got["color"] == [100]
    assert got[HEADLINE] == pytest.approx([(100 + 100 / 3) / 2])


@pytest.mark.parametrize(
    ("name", "variant", "rows"),
    [("pope", LMMS, POPE_ROWS), ("mme", LMMS, MME_ROWS), ("gqa", VLME, POPE_ROWS), ("lab_family", "exact", POPE_ROWS)],
)
def test_weights_are_repetitions(name, variant, rows):
    """A weight of 2 gives the same value as the questions listed twice; several rows of weights are independent."""
    metric = make_metric(name, variant)
    ids = sorted({row[0] for row in rows})
    doubled = ids[0]
    weights = [[1.0] * len(rows), [2.0 if row[0] == doubled else 1.0 for row in rows]]
    copies = rows + [(row[0] + "copy", *row[1:]) for row in rows if row[0] == doubled]
    both, plain_, twice = values(metric, rows, weights), values(metric, rows), values(metric, copies)
    for value in plain_:
        assert both[value] == pytest.approx([plain_[value][0], twice[value][0]])


def test_plain():
    assert plain("  The CAT, sat.\n") == "the cat sat"


def test_names():
    assert metric_name(make_metric("pope", LMMS), "pope", HEADLINE) == "pope"
    assert metric_name(make_metric("pope", LMMS), "pope", "f1") == "pope_f1"
    assert metric_name(make_metric("lab_family", "exact"), "lab", "count") == "count"
    with pytest.raises(UserError, match="did you mean 'Pope'"):
        metrics.make_metric({"_target_": "mmexp.evaluation.metrics.pope.Popee", "variant": LMMS})
    with pytest.raises(UserError, match=r"write metric: \{_target_: mmexp.evaluation.metrics.pope.Pope, variant: "):
        metrics.make_metric("pope")
    with pytest.raises(UserError, match="does not inherit from mmexp Metric"):
        metrics.make_metric({"_target_": "mmexp.evaluation.benchmark.Benchmark"})
    with pytest.raises(UserError, match="did you mean 'lmms_eval'"):
        make_metric("pope", "lmms-eval")


@pytest.mark.parametrize("name", sorted(FORMER_NAMES))
def test_every_metric_is_quiet_about_empty_replies_and_digits_of_other_scripts(name):
    rule: Any = locate(metric_node(name, "")["_target_"], name)
    metric = rule(rule.variants[0])
    for reply in ("", " ", "\uff11", "\n"):
        assert metric.score(reply, ["yes"] * 10) == 0
