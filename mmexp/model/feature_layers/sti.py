"""Sparse Token Integration of Dense Connector (arXiv 2405.13800): pooled tokens of shallow layers join the final ones.

The stride counts tokens in row-major order, as in the official code, not a window of the map. Deliberate differences:
layers, stride and order come from the config, and the last tokens can be kept (the official pooling drops them).
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from mmexp.errors import UserError, nearest
from mmexp.interfaces import FeatureMap, FeatureShape
from mmexp.model.feature_layers.alignment import require_same_width, resized
from mmexp.model.feature_layers.numbering import Number, final_tap, layer_taps

POOLINGS = ("average", "conv", "conv_per_layer")
TAILS = ("drop", "keep")
ORDERS = ("final_first", "final_last")


class SparseTokenIntegration(nn.Module):
    """K shallow maps and the final one -> (W, N + K * pooled, D), without rows and columns.

    Args:
        layers: shallow layers.
        numbering: of ``layers`` and ``final``: ``paper``, ``hf``, ``block`` or ``relative``.
        final: the layer that keeps all its tokens; -1 is the last block.
        stride: tokens that become one.
        tail: the fewer than ``stride`` tokens at the end: ``drop``, or ``keep`` them as one more token.
        pooling: ``average``; ``conv``: a learned Conv1d of kernel and stride ``stride`` (Table 6; whether the layers
            share it is not stated, here they do); ``conv_per_layer``.
        order: ``final_first`` as the official code, or ``final_last`` as the paper's formula.
        depth, shapes: build-time facts.
    """

    def __init__(
        self,
        *,
        layers: Sequence[Number],
        numbering: str,
        final: int,
        stride: int,
        tail: str,
        pooling: str,
        order: str,
        depth: int,
        shapes: Sequence[FeatureShape],
    ) -> None:
        super().__init__()
        for key, value, options in (("tail", tail, TAILS), ("pooling", pooling, POOLINGS), ("order", order, ORDERS)):
            if value not in options:
                raise UserError(f"feature_layers.{key}: unknown '{value}'; {nearest(str(value), options)}")
        last = final_tap(final, numbering, depth)
        shallow = layer_taps(layers, numbering, last, depth)
        require_same_width((last, *shallow), shapes, "sti")
        self.taps = (last, *shallow)
        self.stride, self.keep_tail, self.final_first = stride, tail == "keep", order == "final_first"
        source = shapes[last]
        if not 1 <= stride <= source.num_tokens:
            raise UserError(
                f"feature_layers.stride: {stride} must be from 1 to {source.num_tokens}, the tokens of this encoder"
            )
        self.grid = source.grid
        self.pad = -source.num_tokens % stride if self.keep_tail else 0
        num_convs = {"average": 0, "conv": 1, "conv_per_layer": len(shallow)}[pooling]
        self.convs = nn.ModuleList(nn.Conv1d(source.dim, source.dim, stride, stride) for _ in range(num_convs))
        pooled = (source.num_tokens + self.pad) // stride
        self.out_shape = FeatureShape(source.num_tokens + len(shallow) * pooled, source.dim, None)

    def forward(self, maps: list[FeatureMap]) -> FeatureMap:
        final, *shallow = maps
        pooled = [self.pool(index, resized(feature, self.grid)) for index, feature in enumerate(shallow)]
        parts = [final.tokens, *pooled] if self.final_first else [*pooled, final.tokens]
        return FeatureMap(torch.cat(parts, dim=1), None)

    def pool(self, index: int, tokens: torch.Tensor) -> torch.Tensor:
        """(W, N, D) of the ``index``-th shallow layer -> (W, pooled, D)."""
        if self.convs:
            channels = functional.pad(tokens, (0, 0, 0, self.pad)).transpose(1, 2)
            return self.convs[index % len(self.convs)](channels).transpose(1, 2)
        whole = tokens.shape[1] // self.stride * self.stride
        pooled = tokens[:, :whole].unflatten(1, (-1, self.stride)).mean(dim=2)
        if self.pad:
            pooled = torch.cat([pooled, tokens[:, whole:].mean(dim=1, keepdim=True)], dim=1)
        return pooled
