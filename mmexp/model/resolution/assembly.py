"""From the visual tokens of all views of a batch to those of each image."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn

from mmexp.interfaces import Grid, ImageSize

NEWLINE_SEED = 0


class Tiling(Protocol):
    """How an image was divided: what the assembly reads of ``Tile``."""

    newline: bool
    assemble: str
    global_first: bool

    @property
    def has_whole(self) -> bool: ...

    def grid_of(self, size: ImageSize) -> Grid: ...

    def borders(self, size: ImageSize, grid: Grid) -> Grid: ...


class JoinViews(nn.Module):
    """The views of an image one after the other: (W, Q, D) -> list of (views * Q, D), one per image."""

    def forward(
        self, tokens: torch.Tensor, grid: Grid | None, view_counts: Sequence[int], sizes: Sequence[ImageSize]
    ) -> list[torch.Tensor]:
        return [part.flatten(0, 1) for part in tokens.split(list(view_counts))]


class AssembleTiles(nn.Module):
    """The maps of an image's tiles joined into one, without its padding, each row ended by ``newline``: (W, Q, D) ->
    list of (Q_i, D), one per image, Q_i as ``Tile.num_tokens`` says.

    ``newline`` (D,) starts from N(0, 1 / D) as LLaVA-NeXT's ``image_newline``, always from the same seed, so that it
    is the same in every stage where it is not trained.
    """

    def __init__(self, tile: Tiling, out_dim: int) -> None:
        super().__init__()
        self.tile = tile
        if tile.newline:
            generator = torch.Generator().manual_seed(NEWLINE_SEED)
            self.newline = nn.Parameter(torch.empty(out_dim))
            with torch.no_grad():
                self.newline.copy_(torch.randn(out_dim, generator=generator, device="cpu") * out_dim**-0.5)

    def forward(
        self, tokens: torch.Tensor, grid: Grid | None, view_counts: Sequence[int], sizes: Sequence[ImageSize]
    ) -> list[torch.Tensor]:
        views = zip(tokens.split(list(view_counts)), sizes, strict=True)
        return [self._image(part, grid, size) for part, size in views]

    def _image(self, views: torch.Tensor, grid: Grid | None, size: ImageSize) -> torch.Tensor:
        whole, tiles = (views[0], views[1:]) if self.tile.has_whole else (views[:0].flatten(0, 1), views)
        joined = tiles.flatten(0, 1) if grid is None or self.tile.assemble == "tiles" else self._map(tiles, grid, size)
        return torch.cat([whole, joined] if self.tile.global_first else [joined, whole])

    def _map(self, tiles: torch.Tensor, grid: Grid, size: ImageSize) -> torch.Tensor:
        rows = tiles.unflatten(0, self.tile.grid_of(size)).unflatten(2, grid)  # rows, columns, h, w, D
        joined = rows.transpose(1, 2).flatten(2, 3).flatten(0, 1)
        above, left = self.tile.borders(size, grid)
        joined = joined[above : joined.shape[0] - above, left : joined.shape[1] - left]
        if self.tile.newline:
            ends = self.newline.to(joined.dtype).expand(joined.shape[0], 1, -1)
            joined = torch.cat([joined, ends], dim=1)
        return joined.flatten(0, 1)
