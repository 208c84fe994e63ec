"""What a change in one image corner reaches: the property that Honeybee builds its argument on."""

import pytest
import torch

from mmexp.interfaces import FeatureMap
from tests.model.projector.nodes import IN_DIM, build, features, roughened

GRID, NUM_TOKENS, SIDE = (24, 24), 64, 8
# how far (in output rows or columns) a change of the first feature token reaches; one block on each side of the pooling
REACH = {
    "average_pool": 0,
    "pixel_shuffle": 0,
    "c_abstractor_none": 0,
    "c_abstractor_conv": 1,
    "c_abstractor_convnext": 4,
}


def change_by_token(name: str, **changes: object) -> torch.Tensor:
    """Length of each token's change when the top left feature token changes: (tokens,)."""
    torch.manual_seed(0)
    projector = roughened(build(name, grid=GRID, num_tokens=NUM_TOKENS, **changes)).eval()
    before = features(views=1, grid=GRID)
    after = before.tokens.clone()
    after[:, 0] += torch.randn(IN_DIM)
    with torch.no_grad():
        moved = projector(FeatureMap(after, GRID)).tokens - projector(before).tokens
    return moved[0].norm(dim=-1)


def distance() -> torch.Tensor:
    """Rows or columns, whichever are more, from the top left token: (tokens,)."""
    steps = torch.arange(SIDE)
    return torch.maximum(steps[:, None], steps[None, :]).flatten()


@pytest.mark.parametrize(("name", "reach"), REACH.items())
def test_local_projectors_change_only_near_tokens(name: str, reach: int) -> None:
    depth = {"depth": 1} if name.startswith("c_abstractor_conv") else {}
    change = change_by_token(name, **depth)
    assert change[0] > 0.01
    assert not change[distance() > reach].any()


def test_c_abstractor_changes_far_tokens_only_by_its_squeeze() -> None:
    """The squeeze-and-excitation of its blocks averages over the map, so far tokens feel a little of any change."""
    change = change_by_token("c_abstractor", depth=1)
    far = change[distance() > 1]
    assert far.any()
    assert far.max() < 0.02 * change[0]


@pytest.mark.parametrize("name", ["resampler", "resampler_pos", "resampler_drawn", "q_former"])
def test_query_projectors_change_all_tokens_alike(name: str) -> None:
    change = change_by_token(name)
    assert change.min() > 0.05 * change.max()
