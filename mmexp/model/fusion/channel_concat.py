"""Channel concatenation: all experts on one grid, side by side in the width (Eagle, sections 4 and 4.1).

No norm and no scaling before the concatenation, as in the official code. One expert alone passes through the same way.
"""

from collections.abc import Mapping, Sequence

import torch

from mmexp.interfaces import FeatureMap, FeatureShape
from mmexp.model.fusion.base import BaseFusion
from mmexp.model.fusion.common_grid import CommonGrid


class ChannelConcat(BaseFusion):
    """One stream (W, rows * columns, sum of the widths), channels in the order of the config.

    Args:
        grid, route: see ``CommonGrid``.
        shapes, tap_shapes: build-time facts.
    """

    def __init__(
        self,
        *,
        grid: Sequence[int] | None,
        route: str,
        shapes: Mapping[str, FeatureShape],
        tap_shapes: Mapping[str, Sequence[FeatureShape]],
    ) -> None:
        super().__init__(shapes=shapes, tap_shapes=tap_shapes)
        self.common = CommonGrid(shapes=shapes, grid=grid, route=route)
        parts = list(self.common.shapes.values())
        self.streams = [FeatureShape(parts[0].num_tokens, sum(part.dim for part in parts), parts[0].grid)]

    def forward(self, maps: Mapping[str, list[FeatureMap]]) -> list[FeatureMap]:
        parts = [self.common(name, maps[name][0]) for name in self.shapes]
        return [FeatureMap(torch.cat([part.tokens for part in parts], dim=-1), parts[0].grid)]
