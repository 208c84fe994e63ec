"""One linear layer from the encoder's width to the LLM's (LLaVA)."""

import torch
from torch import nn

from mmexp.interfaces import FeatureMap, Grid


class LinearProjector(nn.Module):
    """(W, N, in_dim) -> (W, N, out_dim). All arguments are build-time facts."""

    def __init__(self, *, in_dim: int, in_tokens: int, in_grid: Grid | None, out_dim: int) -> None:
        super().__init__()
        self.num_tokens, self.grid, self.out_dim = in_tokens, in_grid, out_dim
        self.linear = nn.Linear(in_dim, out_dim)

    def forward(self, features: FeatureMap) -> FeatureMap:
        tokens: torch.Tensor = self.linear(features.tokens)
        return FeatureMap(tokens, features.grid)
