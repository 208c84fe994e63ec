"""Bilinear interpolation of the visual tokens to a smaller grid: Dense Connector's efficient variant.

Paper (arXiv 2405.13800, 3.3): after the projector, 24 x 24 -> 12 x 12, without parameters. Not in the released code;
``align_corners`` and antialiasing are not stated. Without either, halving a side is 2 x 2 average pooling.
"""

from collections.abc import Sequence

from torch import nn
from torch.nn import functional

from mmexp.interfaces import FeatureMap, Grid
from mmexp.model.maps import to_map, to_tokens
from mmexp.model.reduction.reduced_grid import require_place, smaller_grid


class BilinearReduction(nn.Module):
    """(W, N, D) -> (W, rows * columns, D), interpolated in float32.

    Args:
        size: [rows, columns], or a number of tokens of the same aspect.
        align_corners: the corner tokens keep their places.
        antialias: average over all tokens where more than two become one.
        where: ``after_projector`` (the paper) or ``before_projector``; the vision side places it.
        in_tokens, in_grid: build-time facts.
    """

    def __init__(
        self,
        *,
        size: int | Sequence[int],
        align_corners: bool,
        antialias: bool,
        where: str,
        in_tokens: int,
        in_grid: Grid | None,
    ) -> None:
        super().__init__()
        require_place(where)
        self.grid: Grid = smaller_grid(size, in_grid)
        self.in_grid, self.num_tokens = in_grid, self.grid[0] * self.grid[1]
        self.align_corners, self.antialias = align_corners, antialias

    def forward(self, features: FeatureMap) -> FeatureMap:
        assert self.in_grid is not None
        pixels = to_map(features.tokens.float(), self.in_grid)
        small = functional.interpolate(
            pixels, self.grid, mode="bilinear", align_corners=self.align_corners, antialias=self.antialias
        )
        return FeatureMap(to_tokens(small).to(features.tokens.dtype), self.grid)
