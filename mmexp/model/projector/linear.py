"""One linear layer from the encoder's width to the LLM's (LLaVA; Honeybee's ``mlp`` of depth 1)."""

import torch
from torch import nn

from mmexp.interfaces import FeatureShape, Grid
from mmexp.model.projector.base import Frame, FramedProjector


class LinearProjector(FramedProjector):
    """(W, N, in_dim) -> (W, N, out_dim). Options: ``Frame``; the last four arguments are build-time facts."""

    def __init__(
        self,
        *,
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
        super().__init__(frame, source, num_tokens=in_tokens, grid=in_grid, out_dim=out_dim)
        self.linear = nn.Linear(in_dim, out_dim)
        self.draw_weights()

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.run(self.linear, tokens)
