"""The seams carry what the other papers need: injection between blocks, several streams, maps without a grid."""

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import nn

from mmexp.errors import UserError
from mmexp.interfaces import FeatureMap, FeatureShape, Inject
from mmexp.model.fusion.base import BaseFusion
from mmexp.model.mllm import Mllm
from tests.tiny import clip_node, convnext_node, image_batch, random_batch, tiny_spec


class InjectingFusion(BaseFusion):
    """As LLaVA-HR: the second encoder runs first and is added between the blocks of the first one."""

    def __init__(self, *, shapes: Mapping[str, FeatureShape], tap_shapes: Mapping[str, Sequence[FeatureShape]]) -> None:
        super().__init__(shapes=shapes, tap_shapes=tap_shapes)
        self.low, self.high = shapes
        self.adapt = nn.Linear(tap_shapes[self.high][2].dim, shapes[self.low].dim)
        self.streams = [shapes[self.low]]

    def extra_taps(self) -> dict[str, tuple[int, ...]]:
        return {self.high: (2,)}

    def run_order(self) -> list[str]:
        return [self.high, self.low]

    def inject(self, name: str, done: Mapping[str, list[FeatureMap]]) -> Mapping[int, Inject] | None:
        if name != self.low:
            return None
        extra = self.adapt(done[self.high][1].tokens).mean(dim=1, keepdim=True)
        return {1: lambda tokens: tokens + extra, 2: lambda tokens: tokens + extra}

    def forward(self, maps: Mapping[str, list[FeatureMap]]) -> list[FeatureMap]:
        return [maps[self.low][0]]


class TwoStreams(BaseFusion):
    """As sequence append: each encoder is a stream of its own."""

    def __init__(self, *, shapes: Mapping[str, FeatureShape], tap_shapes: Mapping[str, Sequence[FeatureShape]]) -> None:
        super().__init__(shapes=shapes, tap_shapes=tap_shapes)
        self.streams = list(shapes.values())

    def forward(self, maps: Mapping[str, list[FeatureMap]]) -> list[FeatureMap]:
        return [selected for selected, *_ in maps.values()]


class GridlessLayers(nn.Module):
    """As STI: pooled tokens of a shallow layer behind those of a deep one; no rows and columns any more."""

    def __init__(self, *, depth: int, shapes: Sequence[FeatureShape]) -> None:
        super().__init__()
        self.taps = (depth - 1, 1)
        self.out_shape = FeatureShape(shapes[0].num_tokens + shapes[0].num_tokens // 8, shapes[0].dim, None)

    def forward(self, maps: list[FeatureMap]) -> FeatureMap:
        deep, shallow = maps
        pooled = shallow.tokens.unflatten(1, (-1, 8)).mean(dim=2)
        return FeatureMap(torch.cat([deep.tokens, pooled], dim=1), None)


def two_encoders(fusion: type) -> Mllm:
    encoders = {"clip": clip_node(), "convnext": convnext_node()}
    target = f"{fusion.__module__}.{fusion.__qualname__}"
    return Mllm(tiny_spec(encoders=encoders, fusion={"_target_": target}), load=False)


@pytest.fixture(autouse=True)
def allow_test_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmexp.instantiate._allowed", {"tests"})


def test_injecting_fusion_changes_the_low_encoder_and_gets_gradients() -> None:
    model = two_encoders(InjectingFusion)
    images = image_batch(2, {"clip": 32, "convnext": 128})
    before = model.visual_tokens(images)
    before.sum().backward()
    assert model.vision.fusion.adapt.weight.grad.abs().max() > 0
    with torch.no_grad():
        model.vision.fusion.adapt.bias += 1
        assert not torch.allclose(model.visual_tokens(images), before)
    assert before.shape == (2 * model.vision.num_tokens((32, 32)), 96)


def test_each_stream_has_its_own_projector_and_tokens_are_appended() -> None:
    model = two_encoders(TwoStreams)
    assert len(model.vision.projector) == 2
    assert [part.num_tokens for part in model.vision.projector] == [16, 16]
    images = image_batch(2, {"clip": 32, "convnext": 128})
    tokens = model.visual_tokens(images)
    assert tokens.shape == (2 * 32, 96)
    with torch.no_grad():
        model.vision.projector[1].layers[2].weight.zero_()
        model.vision.projector[1].layers[2].bias.zero_()
        cut = model.visual_tokens(images).unflatten(0, (2, 32))
    assert torch.equal(cut[:, 16:], torch.zeros(2, 16, 96))
    assert torch.equal(cut[:, :16], tokens.unflatten(0, (2, 32))[:, :16])


def test_a_map_without_grid_passes_through() -> None:
    node = clip_node(feature_layers={"_target_": f"{__name__}.GridlessLayers"})
    model = Mllm(tiny_spec(encoders={"clip": node}), load=False)
    assert model.vision.grid is None
    assert model.vision.num_tokens((32, 32)) == 18
    assert model(random_batch(num_visual=18)).item() > 0


def test_impossible_combinations_are_refused_with_the_key() -> None:
    with pytest.raises(UserError, match=r"fusion=none takes one encoder.*clip, convnext"):
        Mllm(tiny_spec(encoders={"clip": clip_node(), "convnext": convnext_node()}), load=False)
    deep = {"_target_": "mmexp.model.feature_layers.single.SingleLayer", "layer": -9}
    with pytest.raises(UserError, match=r"feature_layers\.layer: -9 is beyond this encoder, which has 4 blocks"):
        Mllm(tiny_spec(encoders={"clip": clip_node(feature_layers=deep)}), load=False)
    with pytest.raises(UserError, match="encoder: none is chosen"):
        Mllm(tiny_spec(encoders={}), load=False)


def test_placeholders_must_match_visual_tokens() -> None:
    model = Mllm(tiny_spec(), load=False)
    with pytest.raises(ValueError, match="51 placeholders but 48 visual tokens"):
        model(random_batch(num_visual=17))
