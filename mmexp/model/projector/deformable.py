"""Deformable attention on one feature map in plain PyTorch (Deformable DETR, arXiv 2010.04159, sections 4.1, A.2)."""

import torch
from torch import nn
from torch.nn import functional

from mmexp.interfaces import Grid
from mmexp.model.maps import radial_offsets, sample
from mmexp.model.projector.attention import Attention
from mmexp.model.projector.checks import require_at_least, require_dropout, require_heads


class DeformableAttention(nn.Module):
    """Each query reads ``num_points`` places around its reference point, per head.

    Args:
        dim: width of queries and features.
        num_heads: divides ``dim``.
        num_points: places per head.
        grid: rows and columns of the features.
    """

    def __init__(self, *, dim: int, num_heads: int, num_points: int, grid: Grid) -> None:
        super().__init__()
        require_heads(dim, num_heads)
        require_at_least("num_points", num_points, 1)
        self.num_heads, self.num_points, self.grid = num_heads, num_points, grid
        self.offsets = nn.Linear(dim, num_heads * num_points * 2)
        self.weights = nn.Linear(dim, num_heads * num_points)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, queries: torch.Tensor, references: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """(W, Q, D), (W, Q, 2) as (x, y) in 0..1, (W, N, D) -> (W, Q, D).

        Offsets are in tokens of the map. Places and sampling are in float32 whatever the model's precision: at
        bfloat16 a place would be off by a sixteenth of a token.
        """
        rows, columns = self.grid
        offsets = self.offsets(queries).float().unflatten(2, (self.num_heads, self.num_points, 2))
        places = references.float()[:, :, None, None] + offsets / offsets.new_tensor([columns, rows])
        weights = self.weights(queries).float().unflatten(2, (self.num_heads, self.num_points)).softmax(-1)
        values = self.value(features).unflatten(2, (self.num_heads, -1))
        mixed = sample(values.float(), places, weights, self.grid)
        result: torch.Tensor = self.out(mixed.to(values.dtype))
        return result

    def set_radial_offsets(self) -> None:
        """Deformable DETR's initial offsets: head i looks in the i-th direction, its k-th point k tokens away."""
        with torch.no_grad():
            self.offsets.weight.zero_()
            self.offsets.bias.copy_(radial_offsets(self.num_heads, self.num_points).flatten())


class DeformableLayer(nn.Module):
    """Self-attention over the queries, deformable cross-attention, feed-forward; a norm after each."""

    def __init__(self, *, dim: int, num_heads: int, num_points: int, ffn_dim: int, dropout: float, grid: Grid) -> None:
        super().__init__()
        require_dropout(dropout)
        self.dropout = nn.Dropout(dropout)
        # Deformable DETR drops parts' results, not attention weights.
        self.self_attention = Attention(dim=dim, memory_dim=dim, num_heads=num_heads, dropout=0.0)
        self.self_norm = nn.LayerNorm(dim)
        self.cross_attention = DeformableAttention(dim=dim, num_heads=num_heads, num_points=num_points, grid=grid)
        self.cross_norm = nn.LayerNorm(dim)
        self.ffn_in = nn.Linear(dim, ffn_dim)
        self.ffn_out = nn.Linear(ffn_dim, dim)
        self.ffn_norm = nn.LayerNorm(dim)

    def forward(
        self, queries: torch.Tensor, positions: torch.Tensor, references: torch.Tensor, features: torch.Tensor
    ) -> torch.Tensor:
        """(W, Q, D), (W, Q, D), (W, Q, 2), (W, N, D) -> (W, Q, D)."""
        placed = queries + positions
        queries = self.self_norm(queries + self.dropout(self.self_attention(placed, placed, queries)))
        crossed = self.cross_attention(queries + positions, references, features)
        queries = self.cross_norm(queries + self.dropout(crossed))
        inner = self.ffn_out(functional.relu(self.ffn_in(queries)))
        result: torch.Tensor = self.ffn_norm(queries + self.dropout(inner))
        return result
