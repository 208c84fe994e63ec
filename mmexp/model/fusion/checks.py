"""Checks that several fusions share; each names the experts or the config key."""

from collections.abc import Mapping

from mmexp.errors import UserError
from mmexp.interfaces import FeatureShape, Grid


def first_and_others(shapes: Mapping[str, FeatureShape], fusion: str) -> tuple[str, list[str]]:
    """Name of the expert that the others are added to, and theirs.

    Raises:
        UserError: there is one expert only.
    """
    first, *others = shapes
    if not others:
        raise UserError(
            f"fusion={fusion} adds experts to the first one and needs two or more, encoder has one: {first}"
        )
    return first, others


def require_grid(name: str, shape: FeatureShape, fusion: str) -> Grid:
    """Rows and columns of an expert. Raises ``UserError`` where its tokens have none."""
    if shape.grid is None:
        raise UserError(
            f"fusion={fusion} needs tokens in rows and columns, '{name}' has {describe(shape)}; "
            "choose feature_layers that keep the grid"
        )
    return shape.grid


def require_at_least(key: str, value: int, minimum: int) -> None:
    """Raises ``UserError`` naming ``fusion.<key>`` where the value is too small."""
    if value < minimum:
        raise UserError(f"fusion.{key}: {value} must be at least {minimum}")


def describe(shape: FeatureShape) -> str:
    """``32 x 32``, or the number of tokens without rows and columns."""
    if shape.grid is None:
        return f"{shape.num_tokens} tokens without rows and columns"
    return f"{shape.grid[0]} x {shape.grid[1]}"
