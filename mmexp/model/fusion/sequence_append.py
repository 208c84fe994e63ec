"""Sequence append: a stream per expert, one after the other in the LLM's sequence (Eagle, section 4).

Each expert is brought to the common grid and has a projector of its own, as their widths differ (our inference; the
official code is unreleased).
"""

from collections.abc import Mapping, Sequence

from mmexp.interfaces import FeatureMap, FeatureShape
from mmexp.model.fusion.base import BaseFusion
from mmexp.model.fusion.common_grid import CommonGrid


class SequenceAppend(BaseFusion):
    """One stream (W, rows * columns, D) for each expert, in the order of the config.

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
        self.streams = list(self.common.shapes.values())

    def forward(self, maps: Mapping[str, list[FeatureMap]]) -> list[FeatureMap]:
        return [self.common(name, maps[name][0]) for name in self.shapes]
