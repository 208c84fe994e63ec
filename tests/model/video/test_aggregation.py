"""Every option of the group ``video`` keeps the contract of an assembler; a new YAML file is picked up by itself."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from mmexp.errors import UserError
from mmexp.instantiate import instantiate

CONF = Path(__file__).parents[3] / "conf" / "video"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))


def build(name: str, **changes: Any) -> Any:
    node: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    return instantiate(node | changes, "video")


def tokens(frames: int, per_frame: int, dim: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(frames, per_frame, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("per_frame", [6, 9])
def test_numbers_of_tokens_are_known_and_videos_do_not_touch_each_other(name, per_frame) -> None:
    aggregation, first, second = build(name), tokens(3, per_frame), tokens(1, per_frame, seed=1)
    both = aggregation(torch.cat([first, second]), None, [3, 1], [(8, 8)] * 2)
    assert [len(part) for part in both] == [aggregation.num_tokens(count, per_frame) for count in (3, 1)]
    alone = aggregation(first, None, [3], [(8, 8)])[0], aggregation(second, None, [1], [(8, 8)])[0]
    assert all(torch.equal(part, other) for part, other in zip(both, alone, strict=True))
    assert not list(aggregation.parameters())


def test_concatenation_keeps_the_order_of_frames() -> None:
    given = tokens(3, 4)
    assert torch.equal(build("concat").joined(given), torch.cat(list(given)))


def test_the_maximum_is_of_successive_tokens_and_the_rest_is_left_out() -> None:
    given = tokens(2, 5)
    joined = build("max_pool").joined(given)
    expected = [torch.maximum(frame[place], frame[place + 1]) for frame in given for place in (0, 2)]
    assert torch.equal(joined, torch.stack(expected))


def test_the_published_numbers_of_tokens() -> None:
    """papers/dense_connector.md, section 6: 8 frames of CLIP and SigLIP pooled; 4 frames of CLIP concatenated."""
    assert build("max_pool").num_tokens(8, 576) == 2304
    assert build("max_pool").num_tokens(8, 729) == 2912
    assert build("concat").num_tokens(4, 576) == 2304
    assert build("mean").num_tokens(8, 576) == 576
    assert (build("concat").frames, build("max_pool").frames) == (4, 8)


def test_the_mean_is_over_frames() -> None:
    given = tokens(3, 4)
    assert torch.allclose(build("mean").joined(given), (given[0] + given[1] + given[2]) / 3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("frames", [0, -1, 2.5, True])
def test_a_wrong_number_of_frames_is_named(name, frames) -> None:
    with pytest.raises(UserError, match=f"video.frames: {frames}"):
        build(name, frames=frames)


def test_a_wrong_kernel_is_named() -> None:
    with pytest.raises(UserError, match="kernel: 0"):
        build("max_pool", kernel=0)
    with pytest.raises(UserError, match="must be at most the 4 tokens of a frame"):
        build("max_pool", kernel=5).num_tokens(8, 4)
