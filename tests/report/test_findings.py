"""Answers follow from intervals."""

import pytest

from mmexp.report.findings import answer
from mmexp.statistics.measurements import Measurements
from tests.report.synthetic import sweep

ROWS = ["a", "b", "c", "broken"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    results = sweep(tmp_path_factory.mktemp("sweep"), {"a": 0.4, "b": 0.6, "c": 0.4})
    return Measurements(results.lines(), [])


@pytest.mark.parametrize(
    ("check", "verdict"),
    [
        ("b.overall > a.overall", "holds"),
        ("a.overall < b.overall", "holds"),
        ("b.overall > a.overall + 5", "holds"),
        ("b.overall > 30", "holds"),
        ("a.overall > b.overall", "contradicted"),
        ("b.overall > a.overall + 40", "contradicted"),
        ("b.overall > a.overall > c.overall + 30", "contradicted"),
        ("a.overall > c.overall", "not resolved"),
        ("b.overall > a.overall > c.overall", "not resolved"),
        ("broken.overall > a.overall", "no answer"),
        ("a.nothing > b.nothing", "no answer"),
        ("z.overall > a.overall", "no answer"),
        ("import os", "no answer"),
    ],
)
def test_answers(measured, check, verdict):
    found = answer({"id": "i", "claim": "c", "check": check, "source": "s"}, measured, {row: [row] for row in ROWS})
    assert (found.verdict, found.id, found.claim, found.source) == (verdict, "i", "c", "s")
    assert found.detail
    if verdict == "not resolved":
        assert "more" in found.detail


def test_a_set_that_a_search_did_not_try_is_not_a_typo(measured):
    found = answer({"check": "a_z.overall > a.overall"}, measured, {row: [row] for row in ROWS}, searched=True)
    assert (found.verdict, found.detail) == ("no answer", "the search did not try 'a_z'")


def test_one_seed_asks_for_another(tmp_path):
    results = sweep(tmp_path, {"a": 0.2, "b": 0.9}, seeds=(0,))
    found = answer({"check": "b.overall > a.overall"}, Measurements(results.lines(), []), {"a": ["a"], "b": ["b"]})
    assert found.verdict == "not resolved"
    assert "at least 1 more seed needed" in found.detail


def test_a_row_with_axes_is_the_mean_of_its_lines(measured):
    labels = {"low": ["a", "c"], "high": ["b"]}
    found = answer({"check": "high.overall > low.overall"}, measured, labels)
    direct = measured.compare({("b", "overall"): 1.0, ("a", "overall"): -0.5, ("c", "overall"): -0.5})
    assert found.comparisons[0].value == pytest.approx(direct.value)
    assert found.verdict == "holds"
