"""Multi-head attention between two sets of tokens, shared by the resampler, the Q-Former and the D-Abstractor."""

import torch
from torch import nn
from torch.nn import functional

from mmexp.model.projector.checks import require_dropout, require_heads


class Attention(nn.Module):
    """Softmax attention with bias in all four projections.

    Args:
        dim: width of the queries and of the result.
        memory_dim: width of what is attended to.
        num_heads: divides ``dim``.
        dropout: of the attention weights, while training.
    """

    def __init__(self, *, dim: int, memory_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        require_heads(dim, num_heads)
        require_dropout(dropout)
        self.num_heads, self.dropout = num_heads, dropout
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(memory_dim, dim)
        self.value = nn.Linear(memory_dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """(W, Q, dim), (W, K, memory_dim), (W, K, memory_dim) -> (W, Q, dim)."""
        mixed = functional.scaled_dot_product_attention(
            self._heads(self.query(queries)),
            self._heads(self.key(keys)),
            self._heads(self.value(values)),
            dropout_p=self.dropout if self.training else 0.0,
        )
        result: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result

    def _heads(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
