"""One depth of the encoder: LLaVA-1.5's choice (``hidden_states[-2]``), and the last layer."""

from collections.abc import Sequence

from torch import nn

from mmexp.interfaces import FeatureMap, FeatureShape
from mmexp.model.feature_layers.numbering import tap_of


class SingleLayer(nn.Module):
    """One tap.

    Args:
        layer: depth as an index into ``hidden_states``: 0 is the stem, -1 the last block, -2 the last but one.
        depth: blocks of the encoder (build-time fact).
        shapes: shape at every depth 0..depth (build-time fact).
    """

    def __init__(self, *, layer: int, depth: int, shapes: Sequence[FeatureShape]) -> None:
        super().__init__()
        tap = tap_of(layer, "hf", depth, "feature_layers.layer")
        self.taps = (tap,)
        self.out_shape = shapes[tap]

    def forward(self, maps: list[FeatureMap]) -> FeatureMap:
        return maps[0]
