"""Adaptive average pooling and an MLP: the control with few parameters for every abstractor."""

import torch

from mmexp.interfaces import FeatureShape, Grid
from mmexp.model.projector.base import Frame, FramedProjector
from mmexp.model.projector.mlp import build_mlp
from mmexp.model.projector.token_grid import pool, require_grid, square_side


class AveragePoolProjector(FramedProjector):
    """(W, N, in_dim) -> (W, num_tokens, out_dim): pool to a square grid, then ``build_mlp``.

    Args:
        num_tokens: a square number; more than N repeats.
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
        source = FeatureShape(in_tokens, in_dim, in_grid)
        self.side = square_side(num_tokens, "average_pool")
        super().__init__(frame, source, num_tokens=num_tokens, grid=(self.side, self.side), out_dim=out_dim)
        self.in_grid = require_grid(in_grid, "average_pool")
        self.readout = build_mlp(mlp_depth, activation, in_dim, out_dim, key="mlp_depth")
        self.draw_weights()

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.run(self.readout, pool(tokens, self.in_grid, self.side))
