"""SAM's image encoder with a neck at its end, which makes Eagle's 32 x 32 map of width 1024.

Eagle (section 5 and fault 2 of its fact sheet) keeps only the first half of the neck, initialises it at random,
and loses it between the stages. Here the pretrained neck is the default, and a random one is the same in all stages and
runs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.layers import LayerNorm2d
from torch import nn
from torch.nn import functional

from mmexp.errors import UserError, nearest
from mmexp.interfaces import FeatureMap, FeatureShape
from mmexp.model.encoder.timm_encoder import TimmEncoder
from mmexp.model.maps import to_map, to_tokens

NECKS = ("pretrained", "drawn")
NECK_SEED = 0


class SamEncoder(TimmEncoder):
    """The blocks are the taps 1..depth - 1; the deepest tap has gone through the neck and the pixel unshuffle.

    Args:
        neck: ``pretrained``: SAM's own (1 x 1 and 3 x 3 convolution, each with a norm); ``drawn``: a fresh 1 x 1
            convolution and a norm (Eagle's release).
        unshuffle: side of the blocks of tokens that become channels; 1 keeps the grid.
        model_name, model_args, weights, image_size, mean, std, load: see ``TimmEncoder``.

    Raises:
        UserError: not a SAM network with a neck; a grid that the blocks do not divide.
    """

    def __init__(
        self,
        *,
        model_name: str,
        model_args: Mapping[str, Any],
        weights: str,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        neck: str,
        unshuffle: int,
        load: bool = True,
    ) -> None:
        super().__init__(
            model_name=model_name,
            model_args=model_args,
            weights=weights,
            image_size=image_size,
            mean=mean,
            std=std,
            final_norm=False,
            load=load,
        )
        if neck not in NECKS:
            raise UserError(f"neck: unknown '{neck}'; {nearest(neck, NECKS)}")
        if not isinstance(getattr(self.network, "neck", None), nn.Sequential):
            raise UserError(f"model_name: '{model_name}' is not a SAM network with a neck")
        rows, columns = self.network.patch_embed.grid_size
        if unshuffle < 1 or rows % unshuffle or columns % unshuffle:
            raise UserError(f"unshuffle: {unshuffle} does not divide SAM's {rows} x {columns} tokens")
        self.unshuffle = unshuffle
        self.neck_dim = self.network.neck[0].out_channels
        if neck == "drawn":
            self.network.neck = drawn_neck(self.network.embed_dim, self.neck_dim)

    def shape(self, tap: int) -> FeatureShape:
        shape = super().shape(tap)
        if tap < self.depth or shape.grid is None:
            return shape
        rows, columns = shape.grid[0] // self.unshuffle, shape.grid[1] // self.unshuffle
        return FeatureShape(rows * columns, self.neck_dim * self.unshuffle**2, (rows, columns))

    def _feature_map(self, tap: int, hidden: torch.Tensor) -> FeatureMap:
        features = super()._feature_map(tap, hidden)
        if tap < self.depth or features.grid is None:
            return features
        pixels = self.network.neck(to_map(features.tokens, features.grid))
        pixels = functional.pixel_unshuffle(pixels, self.unshuffle)
        return FeatureMap(to_tokens(pixels), (pixels.shape[2], pixels.shape[3]))


def drawn_neck(dim: int, neck_dim: int) -> nn.Sequential:
    """torch's own initialisation from a fixed seed: a frozen neck is not saved, so all stages must draw the same."""
    convolution = nn.Conv2d(dim, neck_dim, kernel_size=1, bias=False)
    generator = torch.Generator().manual_seed(NECK_SEED)
    values = torch.rand(neck_dim, dim, 1, 1, generator=generator, device="cpu")
    with torch.no_grad():
        convolution.weight.copy_((2 * values - 1) * dim**-0.5)
    return nn.Sequential(convolution, LayerNorm2d(neck_dim))
