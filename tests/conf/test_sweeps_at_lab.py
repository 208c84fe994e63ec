"""Every sweep at scale lab: its rows compose, build and differ."""

from collections.abc import Iterator

import pytest

from mmexp.config import Composer, options
from tests.conf.sweep_rows import check_rows

SCALE = "lab"


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with Composer(SCALE).open() as opened:
        yield opened


@pytest.mark.parametrize("sweep", options("sweeps", SCALE))
def test_every_row_builds_and_differs(composer: Composer, sweep: str) -> None:
    check_rows(composer, sweep)
