"""Maps of different depths aligned: one grid, and widths that fit. Plain ViTs do not need it."""

from collections.abc import Iterable, Sequence

import torch
from torch.nn import functional

from mmexp.errors import UserError
from mmexp.interfaces import FeatureMap, FeatureShape, Grid
from mmexp.model.maps import to_map, to_tokens


def resized(feature: FeatureMap, grid: Grid | None) -> torch.Tensor:
    """(W, N, D) -> tokens on ``grid``: bilinear in float32, antialiased, as shallow stages are the larger ones."""
    if grid is None or feature.grid is None or feature.grid == grid:
        return feature.tokens
    pixels = to_map(feature.tokens.float(), feature.grid)
    pixels = functional.interpolate(pixels, grid, mode="bilinear", align_corners=False, antialias=True)
    return to_tokens(pixels).to(feature.tokens.dtype)


def require_same_width(taps: Iterable[int], shapes: Sequence[FeatureShape], choice: str) -> None:
    """Raises ``UserError`` where ``choice``, which adds or appends tokens, gets maps of different widths.

    A projection to a common width is not built in: it would be one more trained part in only some of the rows.
    """
    widths = {tap: shapes[tap].dim for tap in taps}
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{width} at depth {tap}" for tap, width in widths.items())
        raise UserError(
            f"feature_layers: {choice} needs layers of one width, and this encoder has {listed}; "
            "feature_layers=sci concatenates channels of any width"
        )


def on_grid_of(final: FeatureShape, dim: int) -> FeatureShape:
    """The final layer's tokens with another width."""
    return FeatureShape(final.num_tokens, dim, final.grid)
