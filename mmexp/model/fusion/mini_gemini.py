"""Patch info mining: each token of the first expert attends to its own window of another expert's map (Mini-Gemini).

arXiv 2403.18814 and its code (section 4.3 of Eagle's fact sheet); computes the same as the released module from the
same weights. Deliberate difference: NaN scores are not turned into zeros. With more than two experts
each is mined by a module of its own and the results are added (ours: the original has two).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from mmexp.errors import UserError
from mmexp.interfaces import FeatureMap, FeatureShape, Grid
from mmexp.model.fusion.base import BaseFusion
from mmexp.model.fusion.checks import describe, first_and_others, require_at_least, require_grid
from mmexp.model.fusion.common_grid import bilinear
from mmexp.model.maps import to_map


class MiniGemini(BaseFusion):
    """One stream of the first expert's shape: its tokens and what they mined.

    Args:
        multi_stage: a hierarchical expert gives all its stages at the first one's resolution, side by side in the width
            (Mini-Gemini); otherwise, and for every other expert, the map that feature_layers selects.
        window: tokens per side of a window; the map is resized to that many times the first expert's grid. null leaves
            the map as it is, the window is the ratio of the grids.
        shapes, tap_shapes: build-time facts.

    Raises:
        UserError: one expert only; a map that the first expert's grid does not cut into whole windows.
    """

    def __init__(
        self,
        *,
        multi_stage: bool,
        window: int | None,
        shapes: Mapping[str, FeatureShape],
        tap_shapes: Mapping[str, Sequence[FeatureShape]],
    ) -> None:
        super().__init__(shapes=shapes, tap_shapes=tap_shapes)
        self.first, self.others = first_and_others(shapes, "mini_gemini")
        self.grid = require_grid(self.first, shapes[self.first], "mini_gemini")
        self.stages = {name: stages(tap_shapes[name]) if multi_stage else () for name in self.others}
        self.windows, self.miners = {}, nn.ModuleDict()
        for name in self.others:
            source = self._source_shape(name)
            self.windows[name] = self._window(name, source, window)
            self.miners[name] = PatchInfoMining(query_dim=shapes[self.first].dim, source_dim=source.dim)
        self.streams = [shapes[self.first]]

    def extra_taps(self) -> dict[str, tuple[int, ...]]:
        return {name: taps for name, taps in self.stages.items() if taps}

    def forward(self, maps: Mapping[str, list[FeatureMap]]) -> list[FeatureMap]:
        queries = maps[self.first][0].tokens
        tokens = queries
        for name in self.others:
            rows, columns = self.windows[name]
            size = (self.grid[0] * rows, self.grid[1] * columns)
            source = bilinear(self._source(name, maps[name]), size, align_corners=False)
            tokens = tokens + self.miners[name](queries, cut(source, self.grid))
        return [FeatureMap(tokens, self.grid)]

    def _source_shape(self, name: str) -> FeatureShape:
        if not self.stages[name]:
            return self.shapes[name]
        shapes = [self.tap_shapes[name][tap] for tap in self.stages[name]]
        return FeatureShape(shapes[0].num_tokens, sum(shape.dim for shape in shapes), shapes[0].grid)

    def _source(self, name: str, maps: list[FeatureMap]) -> torch.Tensor:
        """(W, D, h, w): the selected map, or all stages at the first one's resolution."""
        chosen = maps[1:] if self.stages[name] else maps[:1]
        pixels = [to_map(part.tokens, part.grid) for part in chosen if part.grid is not None]
        rows, columns = pixels[0].shape[2:]
        return torch.cat([bilinear(part, (rows, columns), align_corners=False) for part in pixels], dim=1)

    def _window(self, name: str, source: FeatureShape, window: int | None) -> Grid:
        rows, columns = require_grid(name, source, "mini_gemini")
        if window is not None:
            require_at_least("window", window, 1)
            return window, window
        if rows % self.grid[0] or columns % self.grid[1]:
            raise UserError(
                f"fusion=mini_gemini: '{name}' ({describe(source)}) cannot be cut into whole windows for the tokens of "
                f"'{self.first}' ({describe(self.shapes[self.first])}); set fusion.window to resize it"
            )
        return rows // self.grid[0], columns // self.grid[1]


class PatchInfoMining(nn.Module):
    """Attention of one head from a token to the tokens of its window; each projection has its own LayerNorm."""

    def __init__(self, *, query_dim: int, source_dim: int) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.LayerNorm(query_dim), nn.Linear(query_dim, query_dim))
        self.key = nn.Sequential(nn.LayerNorm(source_dim), nn.Linear(source_dim, query_dim))
        self.value = nn.Sequential(nn.LayerNorm(source_dim), nn.Linear(source_dim, query_dim))

    def forward(self, tokens: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        """(W, N, D), (W, N, window, D_source) -> (W, N, D)."""
        queries = self.query(tokens)[:, :, None]
        mined = functional.scaled_dot_product_attention(queries, self.key(windows), self.value(windows))
        return mined[:, :, 0]


def stages(shapes: Sequence[FeatureShape]) -> tuple[int, ...]:
    """Depths 1.. of a hierarchical expert, whose grid shrinks on the way; none of a plain one, of which only the last
    map may have another grid (SAM behind its neck)."""
    grids = [shape.grid for shape in shapes[1:]]
    shrinks = len(set(grids[:-1])) > 1 or 1 < len(grids) == len(set(grids))
    return tuple(range(1, len(shapes))) if shrinks else ()


def cut(source: torch.Tensor, grid: Grid) -> torch.Tensor:
    """(W, D, rows * k, columns * l) -> (W, rows * columns, k * l, D): the window of each token."""
    rows, columns = grid
    blocks = source.unflatten(3, (columns, -1)).unflatten(2, (rows, -1))  # W, D, row, y, column, x
    return blocks.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)
