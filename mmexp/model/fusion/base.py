"""What most fusions share: no extra taps, no injection, encoders in the order of the config."""

from collections.abc import Mapping, Sequence

from torch import nn

from mmexp.interfaces import FeatureMap, FeatureShape, Inject


class BaseFusion(nn.Module):
    """Constructed with the encoders' selected shapes in the order of the config.

    ``shapes[name]`` is the shape that ``feature_layers`` makes; ``tap_shapes[name]`` the shapes of all depths,
    for a fusion that asks for extra taps.
    """

    streams: list[FeatureShape]

    def __init__(self, *, shapes: Mapping[str, FeatureShape], tap_shapes: Mapping[str, Sequence[FeatureShape]]) -> None:
        super().__init__()
        self.shapes = dict(shapes)
        self.tap_shapes = {name: list(all_taps) for name, all_taps in tap_shapes.items()}

    def extra_taps(self) -> dict[str, tuple[int, ...]]:
        return {}

    def run_order(self) -> list[str]:
        return list(self.shapes)

    def inject(self, name: str, done: Mapping[str, list[FeatureMap]]) -> Mapping[int, Inject] | None:
        return None
