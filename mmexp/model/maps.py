"""Tokens as maps and back, and sampling of a map between its tokens: what fusions and projectors share."""

import torch
from torch.nn import functional

from mmexp.interfaces import Grid


def to_map(tokens: torch.Tensor, grid: Grid) -> torch.Tensor:
    """(W, rows * columns, D) in row-major order -> (W, D, rows, columns)."""
    return tokens.transpose(1, 2).unflatten(2, grid)


def to_tokens(features: torch.Tensor) -> torch.Tensor:
    """(W, D, rows, columns) -> (W, rows * columns, D)."""
    return features.flatten(2).transpose(1, 2)


def sample(values: torch.Tensor, places: torch.Tensor, weights: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Weighted sums of bilinear samples; zero outside the map.

    Args:
        values: (W, N, heads, D).
        places: (W, Q, heads, K, 2) as (x, y); 0 and 1 are the outer edges of the map.
        weights: (W, Q, heads, K).
        grid: rows and columns of the N values.

    Returns:
        (W, Q, heads * D).
    """
    views, _, heads, _ = values.shape
    maps = values.permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, grid)
    at = (2 * places - 1).transpose(1, 2).flatten(0, 1)
    read = functional.grid_sample(maps, at, mode="bilinear", padding_mode="zeros", align_corners=False)
    mixed = (read * weights.transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)
    return mixed.unflatten(0, (views, heads)).permute(0, 3, 1, 2).flatten(2)


def radial_offsets(num_heads: int, num_points: int) -> torch.Tensor:
    """(heads, points, 2): head i looks in the i-th of ``heads`` directions, its k-th point k tokens away.

    Deformable DETR's initial offsets (arXiv 2010.04159 and its code).
    """
    angles = torch.arange(num_heads) * (2.0 * torch.pi / num_heads)
    directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
    directions = directions / directions.abs().amax(dim=-1, keepdim=True)
    steps = torch.arange(1, num_points + 1)
    return directions[:, None] * steps[None, :, None]
