"""Layers of one encoder in an image that is cut into tiles: each tile is a view, with its own selection of layers."""

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from mmexp.errors import UserError
from mmexp.interfaces import ImageBatch
from mmexp.model.mllm import Mllm
from tests.model.feature_layers.nodes import node
from tests.tiny import NUM_VISUAL, clip_node, tiny_spec

SIZE = (64, 32)
"""A wide image: two tiles and the whole."""


def tiles(option: str) -> dict[str, Any]:
    own: Any = OmegaConf.to_container(OmegaConf.load(f"conf/resolution/{option}.yaml"))
    if own.pop("defaults", None):
        base: Any = OmegaConf.to_container(OmegaConf.load("conf/resolution/tile.yaml"))
        own = base | own
    return own | {"max_tiles": 2, "global_view": "resize"}


def model(layers: str, resolution: str) -> Mllm:
    torch.manual_seed(0)
    clip = clip_node(feature_layers=node(layers), resolution=tiles(resolution))
    return Mllm(tiny_spec(encoders={"clip": clip}), load=False).eval()


def views(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layers", ["dci", "sci", "sti", "dci_learned", "layer_weights"])
def test_tiles_have_the_tokens_that_they_have_as_images(layers: str) -> None:
    cut = model(layers, "tile_flat")
    with torch.no_grad():
        tokens = cut.visual_tokens(ImageBatch(views={"clip": views(3)}, view_counts=[3], sizes=[SIZE]))
        alone = [
            cut.visual_tokens(ImageBatch(views={"clip": view[None]}, view_counts=[1], sizes=[(32, 32)]))
            for view in views(3)
        ]
    assert cut.has_vision and len(tokens) == cut.vision.num_tokens(SIZE) == 3 * cut.vision.tokens_per_view
    assert torch.allclose(tokens, torch.cat([part[: cut.vision.tokens_per_view] for part in alone]), atol=1e-5)


def test_a_map_is_joined_of_layers_with_rows_and_columns_only() -> None:
    joined = model("dci", "tile")
    with torch.no_grad():
        tokens = joined.visual_tokens(ImageBatch(views={"clip": views(3)}, view_counts=[3], sizes=[SIZE]))
    assert joined.has_vision
    assert len(tokens) == joined.vision.num_tokens(SIZE) == NUM_VISUAL + 4 * (8 + 1)
    with pytest.raises(UserError, match="choose resolution=tile_flat"):
        sti = model("sti", "tile")
        assert sti.has_vision
        sti.vision.num_tokens(SIZE)
