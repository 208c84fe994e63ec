"""Boxes in text against boxes in text."""

import pytest

from mmexp.evaluation.metrics.referring import box_of, iou
from tests.rules import make_metric

VARIANTS = ("lmms_eval", "vlmevalkit", "same_units")
REFERENCE = "[0.100,0.200,0.500,0.600]"
REPLIES = [
    # reply, lmms_eval, vlmevalkit, same_units
    ("[0.1, 0.2, 0.5, 0.6]", 1, 1, 1),
    ("It is at [0.1,0.2,0.5,0.6].", 1, 1, 1),
    ("[0.1 0.2 0.5 0.6]", 0, 1, 1),
    ("(0.1, 0.2, 0.5, 0.6)", 0, 1, 1),
    ("(0.1,0.2),(0.5,0.6)", 0, 1, 1),
    ("0.1 0.2 0.5 0.6", 0, 1, 0),
    ("[100, 200, 500, 600]", 0, 1, 0),
    ("[0.5, 0.6, 0.1, 0.2]", 0, 1, 0),
    ("[.1, .2, .5, .6]", 0, 1, 1),
    ("[0.1, 0.2, 0.5, 0.4]", 1, 1, 1),  # half of it: 0.5 counts
    ("[0.1, 0.2, 0.5, 0.39]", 0, 0, 0),
    ("[0.6, 0.7, 0.9, 0.9]", 0, 0, 0),
    ("[0, 0, 0, 0]", 0, 0, 0),
    ("[0.1, 0.2, 0.5]", 0, 0, 0),
    ("[0.1, 0.2, 0.5, 0.6, 0.7]", 0, 1, 0),
    ("[1, 2, 3, 4] or [0.1, 0.2, 0.5, 0.6]", 0, 0, 0),  # the first box is the answer
    ("[9100, 9200, 9500, 9600]", 0, 0, 0),
    ("the red one", 0, 0, 0),
    ("", 0, 0, 0),
]


@pytest.mark.parametrize(("reply", *VARIANTS), REPLIES)
def test_half_of_the_union(reply, lmms_eval, vlmevalkit, same_units):
    got = [make_metric("referring", variant).score(reply, (REFERENCE,)) for variant in VARIANTS]
    assert got == [lmms_eval, vlmevalkit, same_units]


EIGHTHS = [
    ("[2 4 4 6]", 1),
    ("[2, 4, 4, 6]", 1),
    ("(2 4 4 6)", 1),
    ("[2 4 4 5]", 1),
    ("[2 4 3 5]", 0),
    ("[3 4 5 6]", 0),
    ("[2 4 4]", 0),
]


@pytest.mark.parametrize(("reply", "score"), EIGHTHS)
def test_the_labs_eighths(reply, score):
    assert make_metric("referring", "same_units").score(reply, ("[2 4 4 6]",)) == score
    assert make_metric("lab_family", "exact").score(reply, ("[2 4 4 6]",), "referring") == score


def test_lab_answers_that_are_no_boxes_are_compared_as_texts():
    metric = make_metric("lab_family", "exact")
    assert [metric.score(reply, ("red square",)) for reply in ("Red square.", "[2 4 4 6]")] == [1, 0]


def test_boxes_in_text():
    assert box_of("(0.1, 0.2), (0.5, 0.6) and [1 2 3 4]") == (0.1, 0.2, 0.5, 0.6)
    assert box_of("[-1, 2e1, +3., 4]") is None
    assert box_of("[-1, 2e1, +3, 4]") == (-1, 20, 3, 4)


def test_intersection_over_union():
    assert iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert iou((0, 0, 2, 2), (2, 0, 3, 2)) == 0
    assert iou((0, 0, 0, 2), (0, 0, 0, 2)) == 0


def test_references_must_be_boxes():
    for variant in VARIANTS:
        metric = make_metric("referring", variant)
        assert metric.problem((REFERENCE,), "") is None
        assert "must be a box" in str(metric.problem(("left",), ""))
        assert "must be a box" in str(metric.problem(("[0.5, 0.2, 0.1, 0.6]",), ""))
    assert "in parts of the image" in str(make_metric("referring", "vlmevalkit").problem(("[2 4 4 6]",), ""))
