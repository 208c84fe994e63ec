"""Q-Former: learned queries with self-attention, cross-attention to the features in every second layer (BLIP-2).

arXiv 2301.12597, section 3.1; computes the same as transformers' ``Blip2QFormerModel`` from the same weights (a test
compares them). Only the query side is built: an LLM's text does not pass through it. Deliberate differences: the
queries start from N(0, 0.02^2) as in the authors' code, the layers do not start from BERT.
"""

import torch
from torch import nn
from torch.nn import functional

from mmexp.interfaces import FeatureShape, Grid
from mmexp.model.projector.attention import Attention
from mmexp.model.projector.base import Frame, FramedProjector, learned
from mmexp.model.projector.checks import inner_dim, require_at_least, require_dropout

NORM_EPS = 1e-12
"""BERT's."""


class QFormer(FramedProjector):
    """(W, N, in_dim) -> (W, num_tokens, out_dim); the tokens have no rows and columns.

    Args:
        num_tokens: number of queries, any (BLIP-2: 32).
        depth: number of layers.
        cross_attention_every: layers 0, k, 2k, ... attend to the features.
        hidden_dim: width inside; null is the encoder's width (BLIP-2: 768).
        num_heads: divides the width inside.
        ffn_ratio: width of the feed-forward part in units of the width inside.
        dropout: of attention weights and of each part's result.
        prenorm, pos_emb, num_eos_tokens, init_std, gradient_checkpointing: see ``Frame``; prenorm is BLIP-2's
            ``ln_vision``.
        in_dim, in_tokens, in_grid, out_dim: build-time facts.
    """

    def __init__(
        self,
        *,
        num_tokens: int,
        depth: int,
        cross_attention_every: int,
        hidden_dim: int | None,
        num_heads: int,
        ffn_ratio: float,
        dropout: float,
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
        require_at_least("cross_attention_every", cross_attention_every, 1)
        require_dropout(dropout)
        source = FeatureShape(in_tokens, in_dim, in_grid)
        super().__init__(frame, source, num_tokens=num_tokens, grid=None, out_dim=out_dim)
        dim = inner_dim(hidden_dim, in_dim)
        self.queries = learned(num_tokens, dim)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        memory_dims = [in_dim if layer % cross_attention_every == 0 else None for layer in range(depth)]
        self.layers = nn.ModuleList(
            QFormerLayer(
                dim=dim, memory_dim=memory_dim, num_heads=num_heads, ffn_dim=int(dim * ffn_ratio), dropout=dropout
            )
            for memory_dim in memory_dims
        )
        self.output_proj = nn.Linear(dim, out_dim)
        self.draw_weights()

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        queries = self.dropout(self.norm(self.queries)).to(tokens.dtype).expand(len(tokens), -1, -1)
        for layer in self.layers:
            queries = self.run(layer, queries, tokens)
        result: torch.Tensor = self.output_proj(queries)
        return result


class QFormerLayer(nn.Module):
    """Self-attention, cross-attention where ``memory_dim`` is given, feed-forward; a norm after each (BERT's order)."""

    def __init__(self, *, dim: int, memory_dim: int | None, num_heads: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.self_attention = Attention(dim=dim, memory_dim=dim, num_heads=num_heads, dropout=dropout)
        self.self_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.cross_attention, self.cross_norm = None, None
        if memory_dim is not None:
            self.cross_attention = Attention(dim=dim, memory_dim=memory_dim, num_heads=num_heads, dropout=dropout)
            self.cross_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.ffn_in = nn.Linear(dim, ffn_dim)
        self.ffn_out = nn.Linear(ffn_dim, dim)
        self.ffn_norm = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(self, queries: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """(W, Q, D), (W, N, memory_dim) -> (W, Q, D)."""
        queries = self.self_norm(queries + self.dropout(self.self_attention(queries, queries, queries)))
        if self.cross_attention is not None and self.cross_norm is not None:
            queries = self.cross_norm(queries + self.dropout(self.cross_attention(queries, features, features)))
        inner = self.ffn_out(functional.gelu(self.ffn_in(queries)))
        result: torch.Tensor = self.ffn_norm(queries + self.dropout(inner))
        return result
