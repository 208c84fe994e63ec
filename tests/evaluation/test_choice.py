"""Letters read from replies; a question of MMBench counts when all its rotated copies are right."""

import numpy as np
import pytest

from mmexp.errors import UserError
from mmexp.evaluation.metrics import make_metric
from mmexp.evaluation.metrics.base import Answers
from mmexp.evaluation.metrics.choice import letter_of


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(C) the cat", "C"),
        ("The answer is D.", "D"),
        ("A", "A"),
        ("A cat on a mat", None),
        ("A or B", None),
        ("B B", None),
        ("b", None),
        ("", None),
        ("cat", None),
    ],
)
def test_letter_of_a_reply(reply: str, letter: str | None) -> None:
    assert letter_of(reply) == letter


def answers(ids: list[str], scores: list[float], families: list[str]) -> Answers:
    texts = ["x"] * len(ids)
    return Answers(
        question_ids=ids,
        families=families,
        images=texts,
        questions=texts,
        predictions=texts,
        answers=texts,
        scores=np.array(scores),
    )


def test_all_copies_must_be_right() -> None:
    found = answers(["7", "1000007", "2000007", "8", "1000008"], [1, 1, 0, 1, 1], ["a", "a", "a", "b", "b"])
    values = make_metric("multiple_choice", "circular").values(found, np.array([[1.0] * 5, [2, 2, 2, 0, 0]]))
    np.testing.assert_allclose(values[""], [50, 0])
    np.testing.assert_allclose(values["b"], [100, np.nan])
    exact = make_metric("multiple_choice", "exact").values(found, np.ones((1, 5)))
    np.testing.assert_allclose(exact[""], [80])


def test_exact_takes_the_letter_alone() -> None:
    metric = make_metric("multiple_choice", "exact")
    assert [metric.score(reply, ("B",)) for reply in ("B", " b ", "B.", "(B)", "A")] == [1, 1, 0, 0, 0]
    assert make_metric("multiple_choice", "circular").score("(B)", ("B",)) == 1


def test_annotations_and_variants() -> None:
    metric = make_metric("multiple_choice", "exact")
    assert metric.problem(("B",), "") is None
    assert "must be a letter" in str(metric.problem(("red",), ""))
    with pytest.raises(UserError, match="variant: no 'circula'"):
        make_metric("multiple_choice", "circula")
