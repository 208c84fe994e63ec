"""Checks are parsed, never run."""

import pytest

from mmexp.errors import UserError
from mmexp.statistics.expression import check_names, parse_check


def terms(check):
    return [(dict(linear.terms), linear.constant) for linear in parse_check(check)]


def test_parsing():
    assert terms("a.x > b.y") == [({("a", "x"): 1, ("b", "y"): -1}, 0)]
    assert terms("a.x < b.x") == [({("b", "x"): 1, ("a", "x"): -1}, 0)]
    assert terms("a.x - 2 >= b.x + c.x") == [({("a", "x"): 1, ("b", "x"): -1, ("c", "x"): -1}, -2)]
    assert terms("a.x - (b.x - c.x) > -1.5") == [({("a", "x"): 1, ("b", "x"): -1, ("c", "x"): 1}, 1.5)]
    assert terms("a.x > b.x > c.x") == terms("a.x > b.x and b.x > c.x")
    assert len(terms("a.x > b.x > c.x")) == 2
    assert terms("a.x > 0.98 * b.x") == [({("a", "x"): 1, ("b", "x"): -0.98}, 0)]
    assert terms("2 * (a.x - b.x) > 1") == [({("a", "x"): 2, ("b", "x"): -2}, -1)]
    assert terms("with.x > without.x") == [({("with", "x"): 1, ("without", "x"): -1}, 0)]


@pytest.mark.parametrize(
    "check",
    [
        "",
        "a.x",
        "a.x >",
        "a.x == b.x",
        "a.x > b.x or c.x > 1",
        "a.x * b.x > 1",
        "__import__('os').system('true') > 1",
        "a.x.y > 1",
        "a > b",
        "a['x'] > 1",
        "a.x > 'b'",
        "a.x > True",
        "a.x > a.x",
        "2 > 1",
    ],
)
def test_anything_else_is_refused(check):
    with pytest.raises(UserError, match=r"^(cannot read )?check '") as caught:
        parse_check(check)
    assert "\n" not in str(caught.value)


def test_unknown_row_offers_the_nearest():
    check_names("a.x > b.x", ["a", "b", "c", "broken"])
    with pytest.raises(UserError, match=r"names row 'brocken'; did you mean 'broken'\?"):
        check_names("brocken.x > b.x", ["a", "b", "c", "broken"])
