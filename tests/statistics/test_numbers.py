"""How numbers are written for people."""

import pytest

from mmexp.statistics import numbers


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (numbers.count(999), "999"),
        (numbers.count(1_234_567), "1.23M"),
        (numbers.count(6_740_000_000, decimals=1), "6.7B"),
        (numbers.size(512), "512 B"),
        (numbers.size(1_234_567), "1.2 MB"),
        (numbers.size(3e15), "3000.0 TB"),
        (numbers.number(63.14), "63.1"),
        (numbers.number(1466.6), "1467"),
        (numbers.number(None), numbers.NOTHING),
        (numbers.signed(-2.06), "-2.1"),
        (numbers.signed(0.0), "+0.0"),
        (numbers.p_value(0.004), "< 0.01"),
        (numbers.p_value(0.3), "0.30"),
    ],
)
def test_numbers_are_written_for_people(written: str, expected: str) -> None:
    assert written == expected
