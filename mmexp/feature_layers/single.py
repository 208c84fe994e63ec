"""One depth of the encoder: LLaVA-1.5's choice (``hidden_states[-2]``), and the last layer."""

from collections.abc import Sequence

from torch import nn

from mmexp.errors import UserError
from mmexp.interfaces import FeatureMap, FeatureShape


class SingleLayer(nn.Module):
    """One tap.

    Args:
        layer: depth as an index into ``hidden_states``: 0 is the stem, -1 the last block, -2 the last but one.
        depth: blocks of the encoder (build-time fact).
        shapes: shape at every depth 0..depth (build-time fact).
    """

    def __init__(self, *, layer: int, depth: int, shapes: Sequence[FeatureShape]) -> None:
        super().__init__()
        tap = resolve_layer(layer, depth)
        self.taps = (tap,)
        self.out_shape = shapes[tap]

    def forward(self, maps: list[FeatureMap]) -> FeatureMap:
        return maps[0]


def resolve_layer(layer: int, depth: int) -> int:
    """Index into ``hidden_states`` (0..depth, or negative from the end) -> tap.

    Raises:
        UserError: the encoder is not that deep.
    """
    tap = layer + depth + 1 if layer < 0 else layer
    if not 0 <= tap <= depth:
        raise UserError(
            f"feature_layers.layer: {layer} is beyond this encoder, which has {depth} blocks "
            f"(0 is the stem; {-depth - 1} to {depth} are possible)"
        )
    return tap
