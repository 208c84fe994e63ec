"""Adaptive average pooling of the visual tokens to a smaller grid."""

from collections.abc import Sequence

from torch import nn
from torch.nn import functional

from mmexp.interfaces import FeatureMap, Grid
from mmexp.model.maps import to_map, to_tokens
from mmexp.model.reduction.reduced_grid import require_place, smaller_grid


class AveragePoolReduction(nn.Module):
    """(W, N, D) -> (W, rows * columns, D).

    Args:
        size: [rows, columns], or a number of tokens of the same aspect.
        where: ``after_projector`` or ``before_projector``; the vision side places it.
        in_tokens, in_grid: build-time facts.
    """

    def __init__(self, *, size: int | Sequence[int], where: str, in_tokens: int, in_grid: Grid | None) -> None:
        super().__init__()
        require_place(where)
        self.grid: Grid = smaller_grid(size, in_grid)
        self.in_grid, self.num_tokens = in_grid, self.grid[0] * self.grid[1]

    def forward(self, features: FeatureMap) -> FeatureMap:
        assert self.in_grid is not None
        pooled = functional.adaptive_avg_pool2d(to_map(features.tokens, self.in_grid), self.grid)
        return FeatureMap(to_tokens(pooled), self.grid)
