"""Resampler: learned queries attend to themselves and to the features (mPLUG-Owl, as Honeybee compares with it).

Honeybee section 4 and Tables 3, 8, 9; computes the same as its released module from the same weights. Kept from it: the
residual of the attention is taken from the normalised queries, and there is no norm at the end. Deliberate
difference: the features are not changed in place.
"""

import torch
from torch import nn
from torch.nn import functional

from mmexp.interfaces import FeatureShape, Grid
from mmexp.model.projector.attention import Attention
from mmexp.model.projector.base import Frame, FramedProjector
from mmexp.model.projector.checks import inner_dim, require_at_least


class Resampler(FramedProjector):
    """(W, N, in_dim) -> (W, num_tokens, out_dim); the tokens have no rows and columns.

    Args:
        num_tokens: number of queries, any.
        depth: number of layers.
        hidden_dim: width inside; null is the encoder's width.
        num_heads: divides the width inside.
        ffn_ratio: width of the feed-forward part in units of the width inside.
        dropout: of the attention weights.
        query_std: the queries start from N(0, query_std^2). 0 is the released code: all queries are alike at first, and
            only dropout and the LLM's positions tell them apart.
        prenorm, pos_emb, num_eos_tokens, init_std, gradient_checkpointing: see ``Frame``.
        in_dim, in_tokens, in_grid, out_dim: build-time facts.
    """

    def __init__(
        self,
        *,
        num_tokens: int,
        depth: int,
        hidden_dim: int | None,
        num_heads: int,
        ffn_ratio: float,
        dropout: float,
        query_std: float,
        prenorm: bool,
        pos_emb: bool,
        num_eos_tokens: int,
        init_std: float | None,
        gradient_checkpointing: bool,
        in_dim: int,
        in_tokens: int,
        in_grid: Grid | None,
        out_dim: int,
    ) -> None:
        frame = Frame(
            prenorm=prenorm,
            pos_emb=pos_emb,
            num_eos_tokens=num_eos_tokens,
            init_std=init_std,
            gradient_checkpointing=gradient_checkpointing,
        )
        require_at_least("depth", depth, 1)
        require_at_least("query_std", query_std, 0)
        source = FeatureShape(in_tokens, in_dim, in_grid)
        super().__init__(frame, source, num_tokens=num_tokens, grid=None, out_dim=out_dim)
        dim = inner_dim(hidden_dim, in_dim)
        self.input_proj = nn.Linear(in_dim, dim)
        self.queries = nn.Parameter(nn.init.normal_(torch.empty(1, num_tokens, dim), std=query_std))
        self.layers = nn.ModuleList(
            ResamplerLayer(dim=dim, num_heads=num_heads, ffn_dim=int(dim * ffn_ratio), dropout=dropout)
            for _ in range(depth)
        )
        self.output_proj = nn.Linear(dim, out_dim)
        self.draw_weights()

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        features = self.input_proj(tokens)
        queries = self.queries.to(features.dtype).expand(len(features), -1, -1)
        for layer in self.layers:
            queries = self.run(layer, queries, features)
        result: torch.Tensor = self.output_proj(queries)
        return result


class ResamplerLayer(nn.Module):
    """Attention over queries and features together, then a gated feed-forward part."""

    def __init__(self, *, dim: int, num_heads: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm_queries = nn.LayerNorm(dim)
        self.norm_features = nn.LayerNorm(dim)
        self.attention = Attention(dim=dim, memory_dim=dim, num_heads=num_heads, dropout=dropout)
        self.norm_ffn = nn.LayerNorm(dim)
        self.ffn = GatedFeedForward(dim=dim, ffn_dim=ffn_dim)

    def forward(self, queries: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """(W, Q, D), (W, N, D) -> (W, Q, D)."""
        queries, features = self.norm_queries(queries), self.norm_features(features)
        memory = torch.cat([queries, features], dim=1)
        queries = queries + self.attention(queries, memory, memory)
        result: torch.Tensor = queries + self.ffn(self.norm_ffn(queries))
        return result


class GatedFeedForward(nn.Module):
    """down(norm(silu(gate x) * up x))."""

    def __init__(self, *, dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, ffn_dim)
        self.up = nn.Linear(dim, ffn_dim)
        self.norm = nn.LayerNorm(ffn_dim, eps=1e-6)
        self.down = nn.Linear(ffn_dim, dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.down(self.norm(functional.silu(self.gate(tokens)) * self.up(tokens)))
        return result
