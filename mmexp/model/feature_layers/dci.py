"""Dense Channel Integration of Dense Connector (arXiv 2405.13800): means of groups of layers beside the final one.

Order as in the official code: the final layer, then the groups. Deliberate differences: groups come from the config
and are checked against the encoder (the official bounds are fixed, chosen by a substring of the encoder's path), and
means are running sums in the encoder where nothing learned comes between a layer and its group, so that no stack of
maps exists.
"""

import functools
from collections.abc import Sequence

import torch
from torch import nn

from mmexp.errors import UserError, nearest
from mmexp.interfaces import FeatureMap, FeatureShape
from mmexp.model.feature_layers.alignment import on_grid_of, require_same_width, resized
from mmexp.model.feature_layers.numbering import Group, final_tap, group_taps

REDUCTIONS = ("mean", "sum", "learned")
MODULES = ("none", "norm_linear")


class DenseChannelIntegration(nn.Module):
    """Maps of G groups and the final layer -> (W, N, (1 + G) * D).

    ``taps`` names a whole group as a tuple of depths, whose mean the encoder returns as one map; where each layer
    is needed by itself (learned weights or modules, maps of different grids), it names the single depths.

    Args:
        groups: number of equal groups from the stem to the final layer, or explicit groups, see ``group_taps``.
        numbering: of explicit groups and of ``final``: ``paper``, ``hf`` or ``block``.
        final: the final layer; -1 is the last block.
        concat_final: put the final layer beside the groups, as the paper does.
        reduce: ``mean`` (the formula and the code), ``sum`` (the paper's words), or ``learned``: one weight per layer,
            softmax over its group, the mean at the start.
        layer_module: ``none``, or ``norm_linear``: a LayerNorm and a Linear shared by all layers, before the mean and
            not for the final layer (Table 6).
        depth, shapes: build-time facts.
    """

    def __init__(
        self,
        *,
        groups: int | Sequence[Group],
        numbering: str,
        final: int,
        concat_final: bool,
        reduce: str,
        layer_module: str,
        depth: int,
        shapes: Sequence[FeatureShape],
    ) -> None:
        super().__init__()
        for key, value, options in (("reduce", reduce, REDUCTIONS), ("layer_module", layer_module, MODULES)):
            if value not in options:
                raise UserError(f"feature_layers.{key}: unknown '{value}'; {nearest(str(value), options)}")
        last = final_tap(final, numbering, depth)
        self.groups = group_taps(groups, numbering, last, depth)
        members = [tap for group in self.groups for tap in group]
        require_same_width((last, *members), shapes, "dci")
        self.reduce, self.concat_final = reduce, concat_final
        dim = shapes[last].dim
        self.out_shape = on_grid_of(shapes[last], dim * (len(self.groups) + concat_final))
        self.norm = nn.LayerNorm(dim) if layer_module == "norm_linear" else None
        self.linear = nn.Linear(dim, dim) if layer_module == "norm_linear" else None
        sizes = [len(group) for group in self.groups] if reduce == "learned" else []
        if 1 in sizes:
            raise UserError(
                "feature_layers.reduce: learned weights need groups of at least two layers; choose fewer groups"
            )
        self.logits = nn.ParameterList(nn.Parameter(torch.zeros(size)) for size in sizes)
        self.whole_groups = not (self.norm or self.logits or len({shapes[tap].grid for tap in members}) > 1)
        wanted = [group if len(group) > 1 else group[0] for group in self.groups] if self.whole_groups else members
        self.taps: tuple[int | tuple[int, ...], ...] = (*([last] if concat_final else []), *wanted)

    def forward(self, maps: list[FeatureMap]) -> FeatureMap:
        rest = iter(maps)
        parts = [next(rest).tokens] if self.concat_final else []
        for index, group in enumerate(self.groups):
            own = [next(rest) for _ in range(1 if self.whole_groups else len(group))]
            parts.append(self.mean(index, own) * (len(group) if self.reduce == "sum" else 1))
        return FeatureMap(torch.cat(parts, dim=2), self.out_shape.grid)

    def mean(self, index: int, maps: list[FeatureMap]) -> torch.Tensor:
        """(W, N, D): the (weighted) mean of a group's maps, or of the one map that already is their mean."""
        if len(maps) == 1:
            total = self.prepared(maps[0])
        else:
            weights = self.logits[index].softmax(0) if self.logits else [1 / len(maps)] * len(maps)
            weighted = (weight * self.prepared(part).float() for weight, part in zip(weights, maps, strict=True))
            total = functools.reduce(torch.add, weighted).to(maps[0].tokens.dtype)
        # The mean of linear maps is the linear map of the mean.
        return total if self.linear is None else self.linear(total)

    def prepared(self, feature: FeatureMap) -> torch.Tensor:
        tokens = resized(feature, self.out_shape.grid)
        return tokens if self.norm is None else self.norm(tokens)
