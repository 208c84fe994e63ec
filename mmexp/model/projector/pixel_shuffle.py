"""Space to depth and an MLP: neighbouring tokens become one wide token (InternVL 1.5, arXiv 2404.16821, section 3.1).

Checked against the published description only: ``pixel shuffle`` to a quarter of the tokens, LayerNorm, Linear, GELU,
Linear. The order of the channels inside a wide token is ours; a learned layer follows it, so it carries no meaning.
"""

import math

import torch
from torch import nn

from mmexp.errors import UserError
from mmexp.interfaces import FeatureShape, Grid
from mmexp.model.maps import to_map
from mmexp.model.projector.base import Frame, FramedProjector
from mmexp.model.projector.mlp import build_mlp
from mmexp.model.projector.token_grid import require_grid


class PixelShuffleProjector(FramedProjector):
    """(W, N, in_dim) -> (W, num_tokens, out_dim), each output token from a factor x factor block of tokens.

    Args:
        num_tokens: N divided by the square of a factor that divides rows and columns.
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
        from_grid = require_grid(in_grid, "pixel_shuffle")
        factor = shuffle_factor(num_tokens, from_grid)
        source = FeatureShape(in_tokens, in_dim, in_grid)
        grid = (from_grid[0] // factor, from_grid[1] // factor)
        super().__init__(frame, source, num_tokens=num_tokens, grid=grid, out_dim=out_dim)
        self.in_grid, self.factor = from_grid, factor
        wide_dim = in_dim * factor**2
        self.norm = nn.LayerNorm(wide_dim)
        self.readout = build_mlp(mlp_depth, activation, wide_dim, out_dim, key="mlp_depth")
        self.draw_weights()

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        wide = nn.functional.pixel_unshuffle(to_map(tokens, self.in_grid), self.factor)
        return self.run(lambda x: self.readout(self.norm(x)), wide.flatten(2).transpose(1, 2))


def shuffle_factor(num_tokens: int, grid: Grid) -> int:
    """Side of the block of tokens that becomes one.

    Raises:
        UserError: no whole block size gives ``num_tokens``; names the numbers that are possible.
    """
    rows, columns = grid
    possible = {rows * columns // f**2: f for f in range(1, math.gcd(rows, columns) + 1) if math.gcd(*grid) % f == 0}
    if num_tokens not in possible:
        raise UserError(
            f"projector.num_tokens: pixel_shuffle cannot make {num_tokens} of {rows} x {columns} tokens; "
            f"possible: {', '.join(map(str, sorted(possible)))}"
        )
    return possible[num_tokens]
