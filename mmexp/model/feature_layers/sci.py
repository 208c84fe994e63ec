"""Sparse Channel Integration of Dense Connector (arXiv 2405.13800): channels of several layers side by side.

Order as in the official code: the final layer, then the others (the paper's formula has it last; the order only
permutes columns of the projector's first matrix). Deliberate difference: layers of other grids are resized to the final
layer's and may have other widths, so that hierarchical encoders work.
"""

from collections.abc import Sequence

import torch
from torch import nn

from mmexp.errors import UserError, nearest
from mmexp.interfaces import FeatureMap, FeatureShape
from mmexp.model.feature_layers.alignment import on_grid_of, require_same_width, resized
from mmexp.model.feature_layers.numbering import Number, final_tap, layer_taps
from mmexp.model.maps import to_map, to_tokens

MODULES = ("none", "conv2d")


class SparseChannelIntegration(nn.Module):
    """K maps and the final one -> (W, N, sum of widths).

    Args:
        layers: the layers that join the final one.
        numbering: of ``layers`` and ``final``: ``paper``, ``hf``, ``block`` or ``relative``.
        final: the layer whose grid counts; -1 is the last block.
        layer_module: ``none``, or ``conv2d``: a learned 3 x 3 convolution shared by all layers, the final one included
            (Table 6; its padding is not stated, 1 here).
        depth, shapes: build-time facts.
    """

    def __init__(
        self,
        *,
        layers: Sequence[Number],
        numbering: str,
        final: int,
        layer_module: str,
        depth: int,
        shapes: Sequence[FeatureShape],
    ) -> None:
        super().__init__()
        if layer_module not in MODULES:
            raise UserError(
                f"feature_layers.layer_module: unknown '{layer_module}'; {nearest(str(layer_module), MODULES)}"
            )
        last = final_tap(final, numbering, depth)
        self.taps = (last, *layer_taps(layers, numbering, last, depth))
        self.out_shape = on_grid_of(shapes[last], sum(shapes[tap].dim for tap in self.taps))
        self.conv: nn.Conv2d | None = None
        if layer_module == "conv2d":
            require_same_width(self.taps, shapes, "sci with layer_module=conv2d")
            self.conv = nn.Conv2d(shapes[last].dim, shapes[last].dim, kernel_size=3, padding=1)

    def forward(self, maps: list[FeatureMap]) -> FeatureMap:
        grid = self.out_shape.grid
        tokens = torch.cat([self.prepared(resized(feature, grid)) for feature in maps], dim=2)
        return FeatureMap(tokens, grid)

    def prepared(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.conv is None:
            return tokens
        assert self.out_shape.grid is not None, "encoders return maps with rows and columns"
        return to_tokens(self.conv(to_map(tokens, self.out_shape.grid)))
