"""Deformable attention from the first expert's tokens to the other experts' maps (Eagle's own baseline).

Unreleased; a safe specification (section 4.4 of Eagle's fact sheet, derived): as Mini-Gemini, with the window attention
replaced by multi-scale deformable attention (Deformable DETR, arXiv 2010.04159, section 4.1). Reference points are the
centres of the tokens' cells, each further expert is a level, and the result is added to the tokens.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from mmexp.errors import UserError
from mmexp.interfaces import FeatureMap, FeatureShape, Grid
from mmexp.model.fusion.base import BaseFusion
from mmexp.model.fusion.checks import first_and_others, require_at_least, require_grid
from mmexp.model.maps import radial_offsets, sample


class DeformableFusion(BaseFusion):
    """One stream of the first expert's shape: its tokens and what they read. Maps keep their own grids.

    Args:
        num_heads: divides the first expert's width.
        num_points: places that each head reads in each map.
        shapes, tap_shapes: build-time facts.

    Raises:
        UserError: one expert only; an expert without rows and columns; heads that do not divide the width.
    """

    def __init__(
        self,
        *,
        num_heads: int,
        num_points: int,
        shapes: Mapping[str, FeatureShape],
        tap_shapes: Mapping[str, Sequence[FeatureShape]],
    ) -> None:
        super().__init__(shapes=shapes, tap_shapes=tap_shapes)
        self.first, self.others = first_and_others(shapes, "deformable")
        self.grid = require_grid(self.first, shapes[self.first], "deformable")
        self.attention = MultiMapAttention(
            dim=shapes[self.first].dim,
            num_heads=num_heads,
            num_points=num_points,
            map_dims=[shapes[name].dim for name in self.others],
            grids=[require_grid(name, shapes[name], "deformable") for name in self.others],
        )
        self.streams = [shapes[self.first]]

    def forward(self, maps: Mapping[str, list[FeatureMap]]) -> list[FeatureMap]:
        queries = maps[self.first][0].tokens
        references = cell_centres(self.grid).to(queries.device)
        read = self.attention(queries, references, [maps[name][0].tokens for name in self.others])
        return [FeatureMap(queries + read, self.grid)]


class MultiMapAttention(nn.Module):
    """Each query reads ``num_points`` places around its reference point in each map, per head.

    Initialised as in Deformable DETR: points in all directions, equal weights, Xavier values and results.

    Args:
        dim: width of queries and result.
        num_heads: divides ``dim``.
        num_points: places per head and map.
        map_dims: width of each map.
        grids: rows and columns of each map.
    """

    def __init__(
        self, *, dim: int, num_heads: int, num_points: int, map_dims: Sequence[int], grids: Sequence[Grid]
    ) -> None:
        super().__init__()
        require_at_least("num_points", num_points, 1)
        if num_heads < 1 or dim % num_heads:
            raise UserError(f"fusion.num_heads: {num_heads} heads do not divide the first expert's width {dim}")
        self.num_heads, self.num_points, self.grids = num_heads, num_points, list(grids)
        self.offsets = nn.Linear(dim, num_heads * len(grids) * num_points * 2)
        self.weights = nn.Linear(dim, num_heads * len(grids) * num_points)
        self.values = nn.ModuleList(nn.Linear(map_dim, dim) for map_dim in map_dims)
        self.out = nn.Linear(dim, dim)
        self._start()

    def forward(self, queries: torch.Tensor, references: torch.Tensor, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """(W, Q, D), (Q, 2) as (x, y) in 0..1, maps (W, N, D_map) -> (W, Q, D).

        Offsets are in tokens of each map. Places and sampling are in float32 whatever the model's precision: at
        bfloat16 a place would be off by a sixteenth of a token.
        """
        shape = (self.num_heads, len(self.grids), self.num_points)
        offsets = self.offsets(queries).float().unflatten(2, (*shape, 2))
        weights = self.weights(queries).float().unflatten(2, (self.num_heads, -1)).softmax(-1).unflatten(3, shape[1:])
        mixed = torch.zeros_like(queries, dtype=torch.float32)
        for level, (features, grid) in enumerate(zip(maps, self.grids, strict=True)):
            values = self.values[level](features).unflatten(2, (self.num_heads, -1)).float()
            scale = offsets.new_tensor([grid[1], grid[0]])
            places = references.float()[None, :, None, None] + offsets[:, :, :, level] / scale
            mixed = mixed + sample(values, places, weights[:, :, :, level], grid)
        result: torch.Tensor = self.out(mixed.to(queries.dtype))
        return result

    def _start(self) -> None:
        directions = radial_offsets(self.num_heads, self.num_points)[:, None].expand(-1, len(self.grids), -1, -1)
        with torch.no_grad():
            self.offsets.bias.copy_(directions.flatten())
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
        for layer in (*self.values, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.weights.bias)


def cell_centres(grid: Grid) -> torch.Tensor:
    """(rows * columns, 2) as (x, y) in 0..1, in row-major order."""
    rows, columns = grid
    y = (torch.arange(rows) + 0.5) / rows
    x = (torch.arange(columns) + 0.5) / columns
    places = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).flip(-1)
    return places.flatten(0, 1)
