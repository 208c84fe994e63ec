"""Arithmetic of tiles: which grid an image gets, what it fills of it, and which tokens are padding.

The same numbers as transformers' LLaVA-NeXT (``select_best_resolution``, ``get_patch_output_size``, ``unpad_image``).
"""

import math
from collections.abc import Sequence

from mmexp.errors import UserError
from mmexp.interfaces import Grid, ImageSize


def allowed_grids(
    grids: Sequence[Sequence[int]] | None,
    pinpoints: Sequence[Sequence[int]] | None,
    max_tiles: int | None,
    tile_size: tuple[int, int],
) -> list[Grid]:
    """The grids to choose among, as ``Tile`` describes its arguments; ``tile_size`` is (height, width).

    Raises:
        UserError: none is left, or an invalid one.
    """
    if grids is not None and pinpoints is not None:
        raise UserError("resolution: grids and pinpoints are both given; one of them must be null")
    if max_tiles is not None and max_tiles < 1:
        raise UserError(f"resolution.max_tiles: {max_tiles} must be at least 1")
    if grids is not None:
        found = [_pair(grid, "grids", "[rows, columns]") for grid in grids]
    elif pinpoints is not None:
        found = [_in_tiles(_pair(pinpoint, "pinpoints", "[height, width]"), tile_size) for pinpoint in pinpoints]
    elif max_tiles is not None:
        return _all_grids(max_tiles)
    else:
        raise UserError("resolution: no grid to choose; set resolution.max_tiles, resolution.grids or pinpoints")
    if not found:
        raise UserError(f"resolution.{'pinpoints' if grids is None else 'grids'}: is empty; at least one is needed")
    kept = [grid for grid in found if max_tiles is None or math.prod(grid) <= max_tiles]
    if not kept:
        raise UserError(f"resolution.max_tiles: {max_tiles}; all the given grids have more tiles")
    return kept


def _all_grids(max_tiles: int) -> list[Grid]:
    grids = [(rows, columns) for rows in range(1, max_tiles + 1) for columns in range(1, max_tiles // rows + 1)]
    return sorted(grids, key=math.prod)


def _pair(values: Sequence[int], key: str, form: str) -> Grid:
    if isinstance(values, str | int) or len(values) != 2 or not all(isinstance(v, int) and v > 0 for v in values):
        raise UserError(f"resolution.{key}: {values} is not {form}")
    return values[0], values[1]


def _in_tiles(pinpoint: Grid, tile_size: tuple[int, int]) -> Grid:
    if pinpoint[0] % tile_size[0] or pinpoint[1] % tile_size[1]:
        raise UserError(
            f"resolution.pinpoints: {list(pinpoint)} is not a multiple of the tile, {list(tile_size)} ([height, width])"
        )
    return pinpoint[0] // tile_size[0], pinpoint[1] // tile_size[1]


def best_grid(size: ImageSize, grids: Sequence[Grid], tile_size: tuple[int, int]) -> Grid | None:
    """The grid that keeps most pixels of an image of ``size``; of equals the one that wastes least, then the first.

    In floating point as the official code: exact arithmetic would decide near ties otherwise. None: no pixel is kept.
    """
    width, height = size
    best, most, least = None, 0, math.inf
    for rows, columns in grids:
        target_width, target_height = columns * tile_size[1], rows * tile_size[0]
        scale = min(target_width / width, target_height / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        waste = target_width * target_height - kept
        if kept > most or (kept == most and waste < least):
            best, most, least = (rows, columns), kept, waste
    return best if most else None


def fitted_size(size: ImageSize, target: ImageSize) -> ImageSize:
    """The largest size of the same aspect ratio inside ``target``, rounded up."""
    scale_width, scale_height = target[0] / size[0], target[1] / size[1]
    if scale_width < scale_height:
        return target[0], min(math.ceil(size[1] * scale_width), target[1])
    return min(math.ceil(size[0] * scale_height), target[0]), target[1]


def padding(size: ImageSize, target: ImageSize, tokens: Grid) -> Grid:
    """Rows of ``tokens`` that are padding above (and below), columns left (and right); one of them at least stays.

    Args:
        size: of the image.
        target: (width, height) of the canvas that it is centred on.
        tokens: (rows, columns) of the canvas's map.
    """
    width, height = size
    if width * target[1] > height * target[0]:
        filled = height * target[0] * tokens[0] // (width * target[1])
        return min(tokens[0] - filled, tokens[0] - 1) // 2, 0
    filled = width * target[1] * tokens[1] // (height * target[0])
    return 0, min(tokens[1] - filled, tokens[1] - 1) // 2
