"""Bipartite soft matching and an MLP: the most similar tokens are averaged (ToMe, arXiv 2210.09461, section 3).

Deliberate differences: features are compared instead of attention keys (a projector sees no keys), merging happens
once after the encoder in as many rounds as needed, and the remaining tokens keep their reading order.
"""

import torch
from torch.nn import functional

from mmexp.errors import UserError
from mmexp.interfaces import FeatureShape, Grid
from mmexp.model.projector.base import Frame, FramedProjector
from mmexp.model.projector.mlp import build_mlp


class TokenMergeProjector(FramedProjector):
    """(W, N, in_dim) -> (W, num_tokens, out_dim).

    Args:
        num_tokens: at most N.
        mlp_depth: number of linear layers, at least 1.
        activation: ``gelu``, ``relu`` or ``silu``.
        prenorm, pos_emb, num_eos_tokens, init_std, gradient_checkpointing: see ``Frame``.
        in_dim, in_tokens, in_grid, out_dim: build-time facts.
    """

    def __init__(
        self,
        *,
        num_tokens: int,
        mlp_depth: int,
        activation: str,
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
        if num_tokens > in_tokens:
            raise UserError(f"projector.num_tokens: token_merge cannot make {num_tokens} of {in_tokens} tokens")
        source = FeatureShape(in_tokens, in_dim, in_grid)
        super().__init__(frame, source, num_tokens=num_tokens, grid=None, out_dim=out_dim)
        self.num_merged = num_tokens
        self.readout = build_mlp(mlp_depth, activation, in_dim, out_dim, key="mlp_depth")
        self.draw_weights()

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.run(self.readout, merge(tokens, self.num_merged))


def merge(tokens: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """Average similar tokens, weighted by how many each already stands for: (W, N, D) -> (W, num_tokens, D)."""
    sizes = tokens.new_ones(*tokens.shape[:2], 1)
    while tokens.shape[1] > num_tokens:
        fewer = min(tokens.shape[1] - num_tokens, tokens.shape[1] // 2)
        tokens, sizes = _merge_round(tokens, sizes, fewer)
    return tokens


def _merge_round(tokens: torch.Tensor, sizes: torch.Tensor, fewer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One round: ``fewer`` of the tokens at odd places join their most similar token at an even place."""
    with torch.no_grad():
        directions = functional.normalize(tokens.float(), dim=-1)
        similarity = directions[:, 1::2] @ directions[:, ::2].transpose(1, 2)
        score, target = similarity.max(dim=-1)
        ranked = score.argsort(dim=-1, descending=True, stable=True)
        joining, staying = ranked[:, :fewer], ranked[:, fewer:]
        # a product with 0 and 1 instead of scatter_add: the same sums each time, also on a GPU
        joins = functional.one_hot(target.gather(1, joining), similarity.shape[-1]).to(tokens.dtype).transpose(1, 2)
        evens = torch.arange(0, tokens.shape[1], 2, device=tokens.device).expand(len(tokens), -1)
        order = torch.cat([evens, 2 * staying + 1], dim=1).argsort(dim=1)
    packed = torch.cat([tokens * sizes, sizes], dim=-1)
    even, odd = packed[:, ::2], packed[:, 1::2]
    merged = torch.cat([even + joins @ _take(odd, joining), _take(odd, staying)], dim=1)
    merged = _take(merged, order)
    return merged[..., :-1] / merged[..., -1:], merged[..., -1:]


def _take(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(W, N, D) at (W, K) -> (W, K, D)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))
