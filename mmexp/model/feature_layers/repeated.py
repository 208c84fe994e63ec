"""One layer several times side by side: the control for sci and dci at equal parameters, which the paper lacks."""

from collections.abc import Sequence

from torch import nn

from mmexp.errors import UserError
from mmexp.interfaces import FeatureMap, FeatureShape
from mmexp.model.feature_layers.alignment import on_grid_of
from mmexp.model.feature_layers.numbering import tap_of


class RepeatedLayer(nn.Module):
    """(W, N, D) -> (W, N, times * D).

    Args:
        layer: in the numbering; -1 is the last block.
        numbering: ``paper``, ``hf`` or ``block``.
        times: 3 has the projector of sci with two further layers, and of dci with two groups.
        depth, shapes: build-time facts.
    """

    def __init__(self, *, layer: int, numbering: str, times: int, depth: int, shapes: Sequence[FeatureShape]) -> None:
        super().__init__()
        if times < 1:
            raise UserError(f"feature_layers.times: {times} must be at least 1")
        tap = tap_of(layer, numbering, depth, "feature_layers.layer")
        self.times, self.taps = times, (tap,)
        self.out_shape = on_grid_of(shapes[tap], times * shapes[tap].dim)

    def forward(self, maps: list[FeatureMap]) -> FeatureMap:
        return FeatureMap(maps[0].tokens.repeat(1, 1, self.times), maps[0].grid)
