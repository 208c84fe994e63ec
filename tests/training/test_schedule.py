"""Learning rates at the corners of a schedule."""

import pytest
import torch

from mmexp.errors import UserError
from mmexp.training.schedule import make_schedule
from tests.tiny import COSINE


def rates(**changes) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    values = {"steps": 100, "warmup_ratio": 0.1, "decay": COSINE, **changes}
    schedule = make_schedule(optimizer, **values)
    found = []
    for _ in range(101):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_without_floor_from_zero_to_zero() -> None:
    found = rates()
    assert found[0] == 0
    assert found[5] == pytest.approx(1.0)
    assert found[10] == 2.0
    assert found[55] == pytest.approx(1.0)
    assert found[100] == pytest.approx(0)


@pytest.mark.parametrize("decay", ["Cosine", "Linear"])
def test_a_floor_is_where_it_begins_and_ends(decay: str) -> None:
    found = rates(floor=0.25, decay={"_target_": f"mmexp.training.schedule.{decay}"})
    assert found[0] == found[100] == pytest.approx(0.5)
    assert found[10] == pytest.approx(2.0)
    assert found[55] == pytest.approx(0.5 + 1.5 / 2)
    assert min(found) == pytest.approx(0.5)


def test_an_impossible_floor() -> None:
    with pytest.raises(UserError, match=r"schedule\.floor: 1"):
        rates(floor=1)
