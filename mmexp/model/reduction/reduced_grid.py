"""Sizes of reduced grids, and their checks."""

from collections.abc import Sequence

from mmexp.errors import UserError, nearest
from mmexp.interfaces import Grid

PLACES = ("after_projector", "before_projector")
"""Values of ``where``, which the vision side reads: on which side of the projector a reduction stands."""


def require_place(where: str) -> None:
    """Raises ``UserError`` for an unknown place."""
    if where not in PLACES:
        raise UserError(f"reduction.where: unknown '{where}'; {nearest(str(where), PLACES)}")


def smaller_grid(size: int | Sequence[int], grid: Grid | None) -> Grid:
    """The grid that ``size`` means.

    Args:
        size: [rows, columns], or a number of tokens that make a grid as tall to wide as ``grid``.
        grid: of the tokens that come in.

    Raises:
        UserError: tokens without rows and columns, a size that is larger or does not make a grid.
    """
    if grid is None:
        raise UserError(
            "reduction: needs tokens in rows and columns, and these have none (a resampler, EOS tokens or sti mix "
            "them); choose reduction=none, or set the projector's own num_tokens"
        )
    small = _same_aspect(size, grid) if isinstance(size, int) else tuple(size)
    if len(small) != 2 or not all(1 <= part <= whole for part, whole in zip(small, grid, strict=False)):
        raise UserError(
            f"reduction.size: {size} must be [rows, columns] between [1, 1] and the {list(grid)} that come in"
        )
    return small[0], small[1]


def _same_aspect(size: int, grid: Grid) -> tuple[int, ...]:
    possible = {row * grid[1] // grid[0] * row: row for row in range(1, grid[0] + 1) if row * grid[1] % grid[0] == 0}
    if size not in possible:
        near = sorted(sorted(possible, key=lambda number: abs(number - size))[:3])
        raise UserError(
            f"reduction.size: {size} tokens do not make a grid shaped like the {grid[0]} x {grid[1]} that come in; "
            f"choose from: {', '.join(map(str, near))}, or give [rows, columns]"
        )
    return possible[size], size // possible[size]
