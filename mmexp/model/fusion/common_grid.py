"""One grid for the maps of several experts, and resizing of maps.

Eagle, sections 4.1 and 5 of the fact sheet: bilinear in float32 with aligned corners, or pixel shuffle. Differences to
the official code: the grid is a choice (there 32 x 32), and a map that does not fit is refused when the model is built.
"""

from collections.abc import Mapping, Sequence

import torch
from torch.nn import functional

from mmexp.errors import UserError, nearest
from mmexp.interfaces import FeatureMap, FeatureShape, Grid
from mmexp.model.fusion.checks import describe
from mmexp.model.maps import to_map, to_tokens

ROUTES = ("bilinear", "pixel_shuffle")


class CommonGrid:
    """Brings the map of each expert to one grid; a map that is there already stays as it is.

    Args:
        shapes: the experts' maps in the order of the config.
        grid: rows and columns; None is the first expert's.
        route: ``bilinear``, or ``pixel_shuffle``: blocks of tokens become channels (or back), so nothing is lost.

    Attributes:
        shapes: what comes out, by expert.

    Raises:
        UserError: unknown route; an expert that cannot be brought to the grid.
    """

    def __init__(self, *, shapes: Mapping[str, FeatureShape], grid: Sequence[int] | None, route: str) -> None:
        if route not in ROUTES:
            raise UserError(f"fusion.route: unknown '{route}'; {nearest(route, ROUTES)}")
        first = next(iter(shapes))
        self.route = route
        if grid is None:
            self.target, self.owner = shapes[first], f"'{first}' ({describe(shapes[first])})"
        else:
            rows, columns = check_grid(grid)
            self.target = FeatureShape(rows * columns, shapes[first].dim, (rows, columns))
            self.owner = f"fusion.grid ({rows} x {columns})"
        self.shapes = {name: self._shape(name, shape) for name, shape in shapes.items()}

    def __call__(self, name: str, features: FeatureMap) -> FeatureMap:
        """(W, N, D) of an expert -> (W, rows * columns, D or what pixel shuffle makes of it)."""
        shape = self.shapes[name]
        if features.grid == shape.grid or features.grid is None or shape.grid is None:
            return features
        pixels = to_map(features.tokens, features.grid)
        if self.route == "bilinear":
            return FeatureMap(to_tokens(bilinear(pixels, shape.grid, align_corners=True)), shape.grid)
        return FeatureMap(to_tokens(shuffle(pixels, shape.grid)), shape.grid)

    def _shape(self, name: str, shape: FeatureShape) -> FeatureShape:
        grid = self.target.grid
        if (shape.num_tokens, shape.grid) == (self.target.num_tokens, grid):
            return shape
        if grid is None or shape.grid is None:
            raise UserError(
                f"fusion: '{name}' ({describe(shape)}) and {self.owner} cannot share a grid; "
                "choose feature_layers that keep rows and columns"
            )
        dim = shape.dim if self.route == "bilinear" else shuffled_dim(shape.dim, shape.grid, grid)
        if dim is None:
            raise UserError(
                f"fusion.route: pixel_shuffle cannot bring '{name}' ({describe(shape)}, width {shape.dim}) to the grid "
                f"of {self.owner}: that needs whole blocks; bilinear can"
            )
        return FeatureShape(self.target.num_tokens, dim, grid)


def check_grid(grid: Sequence[int]) -> Grid:
    """Raises ``UserError`` unless these are two integers of at least 1."""
    if len(grid) != 2 or any(not isinstance(side, int) or side < 1 for side in grid):
        raise UserError(f"fusion.grid: {list(grid)} is not [rows, columns]; for example [32, 32], or null")
    rows, columns = grid
    return rows, columns


def bilinear(pixels: torch.Tensor, grid: Grid, *, align_corners: bool) -> torch.Tensor:
    """(W, D, h, w) -> (W, D, rows, columns), computed in float32."""
    if pixels.shape[2:] == grid:
        return pixels
    resized = functional.interpolate(pixels.float(), size=grid, mode="bilinear", align_corners=align_corners)
    return resized.to(pixels.dtype)


def shuffled_dim(dim: int, old: Grid, new: Grid) -> int | None:
    """Width after pixel shuffle, or None where no whole block size does it."""
    if old[0] % new[0] == 0 and old[0] // new[0] == old[1] / new[1]:
        return dim * (old[0] // new[0]) ** 2
    if new[0] % old[0] == 0 and new[0] // old[0] == new[1] / old[1] and dim % (new[0] // old[0]) ** 2 == 0:
        return int(dim // (new[0] // old[0]) ** 2)
    return None


def shuffle(pixels: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Tokens to channels or back: (W, D, h, w) -> (W, D', rows, columns)."""
    old, new = pixels.shape[2], grid[0]
    return functional.pixel_unshuffle(pixels, old // new) if old > new else functional.pixel_shuffle(pixels, new // old)
