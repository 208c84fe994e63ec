"""Multi-layer perceptron applied to each token: LLaVA-1.5's ``mlp2x_gelu``, Honeybee's SiLU variants of any depth."""

import torch
from torch import nn

from mmexp.interfaces import FeatureShape, Grid
from mmexp.model.projector.base import Frame, FramedProjector
from mmexp.model.projector.checks import require_at_least, require_choice

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


class MlpProjector(FramedProjector):
    """(W, N, in_dim) -> (W, N, out_dim), see ``build_mlp``.

    Args:
        depth: number of linear layers, at least 1.
        activation: ``gelu``, ``relu`` or ``silu``.
        prenorm, pos_emb, num_eos_tokens, init_std, gradient_checkpointing: see ``Frame``.
        in_dim, in_tokens, in_grid, out_dim: build-time facts.
    """

    def __init__(
        self,
        *,
        depth: int,
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
        super().__init__(frame, source, num_tokens=in_tokens, grid=in_grid, out_dim=out_dim)
        self.layers = build_mlp(depth, activation, in_dim, out_dim, key="depth")
        self.draw_weights()

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.run(self.layers, tokens)


def build_mlp(depth: int, activation: str, in_dim: int, out_dim: int, *, key: str) -> nn.Sequential:
    """Linear(in, out), then ``depth - 1`` times activation and Linear(out, out).

    Raises:
        UserError: a depth below 1 (named by its config ``key``), an unknown activation.
    """
    require_at_least(key, depth, 1)
    require_choice("activation", activation, ACTIVATIONS)
    layers: list[nn.Module] = [nn.Linear(in_dim, out_dim)]
    for _ in range(depth - 1):
        layers += [ACTIVATIONS[activation](), nn.Linear(out_dim, out_dim)]
    return nn.Sequential(*layers)
