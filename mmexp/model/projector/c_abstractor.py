"""C-Abstractor: convolution blocks, adaptive average pooling, convolution blocks, MLP (Honeybee, arXiv 2312.06742).

Section 3.2, App. C, Table 9; with ``regnet`` blocks it computes the same as the released module from the same weights.
``convnext`` and ``conv`` are Table 9's other blocks, whose code is not released: the ConvNeXt block as timm has it,
and a 3x3 convolution with the norm and activation of the RegNet block and no shortcut (ours).
"""

from collections.abc import Callable

import torch
from timm.layers import ConvNormAct, LayerNorm2d
from timm.models.convnext import ConvNeXtBlock
from timm.models.regnet import Bottleneck
from torch import nn

from mmexp.errors import UserError
from mmexp.interfaces import FeatureShape, Grid
from mmexp.model.maps import to_map, to_tokens
from mmexp.model.projector.base import Frame, FramedProjector
from mmexp.model.projector.checks import inner_dim, require_choice
from mmexp.model.projector.mlp import build_mlp
from mmexp.model.projector.token_grid import pool, require_grid, square_side


def regnet_block(in_dim: int, out_dim: int) -> nn.Module:
    """1x1, depthwise 3x3, squeeze-and-excitation, 1x1, shortcut: the "ResNet bottleneck" of the paper."""
    return Bottleneck(in_dim, out_dim, act_layer=nn.SiLU, norm_layer=LayerNorm2d)


def convnext_block(in_dim: int, out_dim: int) -> nn.Module:
    """Depthwise 7x7, LayerNorm, two linear layers with GELU, layer scale, shortcut."""
    return ConvNeXtBlock(in_dim, out_dim)


def conv_block(in_dim: int, out_dim: int) -> nn.Module:
    """3x3 convolution, LayerNorm, SiLU."""
    return ConvNormAct(in_dim, out_dim, 3, norm_layer=LayerNorm2d, act_layer=nn.SiLU)


BLOCKS: dict[str, Callable[[int, int], nn.Module]] = {
    "regnet": regnet_block,
    "convnext": convnext_block,
    "conv": conv_block,
}


class CAbstractor(FramedProjector):
    """(W, N, in_dim) -> (W, num_tokens, out_dim) in rows and columns.

    Args:
        num_tokens: a square number; more than N is possible.
        depth: blocks on each side of the pooling; 0 exactly when ``block`` is ``none``.
        block: ``regnet``, ``convnext``, ``conv`` or ``none`` (pooling and MLP only).
        hidden_dim: width of the blocks; null is the encoder's width.
        mlp_depth: number of linear layers of the SiLU MLP at the end.
        prenorm, pos_emb, num_eos_tokens, init_std, gradient_checkpointing: see ``Frame``.
        in_dim, in_tokens, in_grid, out_dim: build-time facts.
    """

    def __init__(
        self,
        *,
        num_tokens: int,
        depth: int,
        block: str,
        hidden_dim: int | None,
        mlp_depth: int,
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
        check_blocks(block, depth, hidden_dim)
        side = square_side(num_tokens, "c_abstractor")
        source = FeatureShape(in_tokens, in_dim, in_grid)
        super().__init__(frame, source, num_tokens=num_tokens, grid=(side, side), out_dim=out_dim)
        self.in_grid, self.side = require_grid(in_grid, "c_abstractor"), side
        dim = inner_dim(hidden_dim, in_dim)
        widths = [in_dim] + [dim] * depth
        self.before = nn.ModuleList(BLOCKS[block](width, dim) for width in widths[:depth])
        self.after = nn.ModuleList(BLOCKS[block](dim, dim) for _ in range(depth))
        self.readout = build_mlp(mlp_depth, "silu", dim, out_dim, key="mlp_depth")
        self.draw_weights()

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = self._blocks(self.before, tokens, self.in_grid)
        tokens = self._blocks(self.after, pool(tokens, self.in_grid, self.side), (self.side, self.side))
        return self.run(self.readout, tokens)

    def _blocks(self, blocks: nn.ModuleList, tokens: torch.Tensor, grid: Grid) -> torch.Tensor:
        features = to_map(tokens, grid)
        for block in blocks:
            features = self.run(block, features)
        return to_tokens(features)


def check_blocks(block: str, depth: int, hidden_dim: int | None) -> None:
    """Raises ``UserError`` for an unknown block, or a block and a depth that contradict each other."""
    require_choice("block", block, (*BLOCKS, "none"))
    if block == "none" and (depth != 0 or hidden_dim is not None):
        raise UserError("projector.block=none has no blocks; set projector.depth=0 and projector.hidden_dim=null")
    if block != "none" and depth < 1:
        raise UserError(f"projector.depth: {depth} blocks of '{block}'; must be at least 1, or projector.block=none")
