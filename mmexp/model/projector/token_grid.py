"""Pooling of maps, and the checks that need rows and columns."""

import math

import torch
from torch.nn import functional

from mmexp.errors import UserError
from mmexp.interfaces import Grid
from mmexp.model.maps import to_map, to_tokens


def pool(tokens: torch.Tensor, grid: Grid, side: int) -> torch.Tensor:
    """Adaptive average pooling of a map to side x side tokens: (W, N, D) -> (W, side * side, D); side may be larger."""
    return to_tokens(functional.adaptive_avg_pool2d(to_map(tokens, grid), side))


def require_grid(grid: Grid | None, projector: str) -> Grid:
    """The grid. Raises ``UserError`` where the stream has none: this projector needs one."""
    if grid is None:
        raise UserError(
            f"projector: {projector} needs tokens in rows and columns, and this stream has none (feature_layers or "
            "fusion mixes tokens of several layers); choose linear, an mlp, resampler, q_former or token_merge"
        )
    return grid


def square_side(num_tokens: int, projector: str) -> int:
    """Side of the square that ``num_tokens`` make.

    Raises:
        UserError: not a square.
    """
    side = math.isqrt(max(num_tokens, 0))
    if num_tokens < 1 or side * side != num_tokens:
        near = f"{side * side} or {(side + 1) ** 2}" if side else "1 or 4"
        raise UserError(
            f"projector.num_tokens: {num_tokens} is not a square number; {projector} puts its tokens on a "
            f"square grid, so for example {near}"
        )
    return side
