"""One encoder, passed on as it is."""

from collections.abc import Mapping, Sequence

from mmexp.errors import UserError
from mmexp.interfaces import FeatureMap, FeatureShape
from mmexp.model.fusion.base import BaseFusion


class NoFusion(BaseFusion):
    """Raises ``UserError`` when the config has more than one encoder."""

    def __init__(self, *, shapes: Mapping[str, FeatureShape], tap_shapes: Mapping[str, Sequence[FeatureShape]]) -> None:
        super().__init__(shapes=shapes, tap_shapes=tap_shapes)
        if len(shapes) != 1:
            raise UserError(f"fusion=none takes one encoder, encoder has {len(shapes)}: {', '.join(shapes)}")
        self.streams = list(shapes.values())

    def forward(self, maps: Mapping[str, list[FeatureMap]]) -> list[FeatureMap]:
        ((selected,),) = maps.values()
        return [selected]
