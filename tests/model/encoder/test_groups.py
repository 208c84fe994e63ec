"""A group of depths is one tap: its mean, from a running sum, in the encoder and in the feature cache."""

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmexp.errors import UserError
from mmexp.interfaces import FeatureMap
from mmexp.model.encoder.block_encoder import BlockEncoder
from mmexp.model.feature_cache import EncoderFeatures, FeatureStore
from mmexp.model.mllm import Mllm
from tests.model.encoder.test_encoders import TIMM, clip_encoder, timm_encoder
from tests.tiny import clip_node, image_batch, tiny_spec

DCI = {
    "_target_": "mmexp.model.feature_layers.dci.DenseChannelIntegration",
    "groups": 2,
    "numbering": "paper",
    "final": -2,
    "concat_final": True,
    "reduce": "mean",
    "layer_module": "none",
}


@pytest.mark.parametrize("grad", [False, True])
def test_a_group_is_the_mean_of_its_members(grad: bool) -> None:
    encoder = clip_encoder()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.set_grad_enabled(grad):
        first, group, stem, rest = encoder(pixels, [1, (0, 1, 3), 0, (2, 3)])
        states = [feature.tokens for feature in encoder(pixels, [0, 1, 2, 3])]
    assert torch.equal(first.tokens, states[1]) and torch.equal(stem.tokens, states[0])
    assert torch.allclose(group.tokens, (states[0] + states[1] + states[3]) / 3, atol=1e-6)
    assert torch.allclose(rest.tokens, (states[2] + states[3]) / 2, atol=1e-6)
    assert group.grid == first.grid


def test_blocks_after_the_deepest_member_do_not_run() -> None:
    encoder = clip_encoder()
    ran: list[int] = []
    for index, block in enumerate(encoder.blocks()):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    encoder(torch.randn(1, 3, 32, 32), [(0, 1), 2])
    assert ran == [0, 1]


def test_gradients_reach_a_trained_encoder_through_a_group() -> None:
    encoder = clip_encoder()
    pixels = torch.randn(1, 3, 32, 32)
    gradients = []
    for taps in ([(0, 1, 2)], [0, 1, 2]):
        encoder.zero_grad()
        maps = [feature.tokens for feature in encoder(pixels, taps)]
        torch.stack(maps).mean(0).square().sum().backward()
        gradients.append([p.grad.clone() for p in encoder.blocks()[0].parameters()])
    for mine, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-5)


def test_a_group_of_a_bfloat16_encoder_is_summed_in_float32() -> None:
    encoder = clip_encoder().to(torch.bfloat16)
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.bfloat16)
    with torch.no_grad():
        (group,) = encoder(pixels, [(0, 1, 2, 3)])
        states = torch.stack([feature.tokens for feature in encoder(pixels, [0, 1, 2, 3])])
    assert torch.equal(group.tokens, (states.float().sum(0) / 4).to(torch.bfloat16))


def test_only_the_running_sum_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = clip_encoder()
    alive: list[int] = []
    made: list[Any] = []
    original = BlockEncoder._feature_map

    def watched(self: BlockEncoder, tap: int, hidden: torch.Tensor) -> FeatureMap:
        alive.append(sum(reference() is not None for reference in made))
        feature = original(self, tap, hidden)
        made.append(weakref.ref(feature.tokens))
        return feature

    monkeypatch.setattr(BlockEncoder, "_feature_map", watched)
    with torch.no_grad():
        encoder(torch.randn(1, 3, 32, 32), [(0, 1), (2, 3)])
        assert max(alive) == 0
        encoder(torch.randn(1, 3, 32, 32), [0, 1, 2, 3])
        assert max(alive) == 3


@pytest.mark.parametrize("group", [(), (1, 1), (1, 4)])
def test_an_invalid_group_is_refused(group: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"not a valid group|0 \(stem\) to 3"):
        clip_encoder()(torch.randn(1, 3, 32, 32), [group])


def test_stages_of_several_sizes_have_no_mean() -> None:
    encoder = timm_encoder(*TIMM[-1])
    with pytest.raises(ValueError, match="differ in shape"):
        encoder(torch.randn(1, 3, 64, 64), [(1, 2)])


def test_the_cache_stores_the_group_and_not_its_members(tmp_path: Path) -> None:
    encoder = clip_encoder().requires_grad_(False)
    view = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    cache = EncoderFeatures(encoder, [3, (0, 1, 2)], tmp_path, 10**9)
    assert cache.fill([view], 4) == 1
    found = EncoderFeatures(encoder, [(0, 1, 2), 3], tmp_path, 10**9).lookup(view)
    direct = encoder(encoder.normalize(torch.from_numpy(view)[None]), [(0, 1, 2), 3])
    assert found is not None
    for tap, feature in zip([(0, 1, 2), 3], direct, strict=True):
        assert np.array_equal(found[tap], feature.tokens[0].numpy())
    stored = sorted(path.name.split(".", 1)[1] for path in tmp_path.rglob("*.npy"))
    assert stored == ["0+1+2.npy", "3.npy", "keys.npy"]
    assert EncoderFeatures(encoder, [(0, 1)], tmp_path, 10**9).lookup(view) is None


def test_a_model_with_groups_gives_the_same_tokens_from_the_cache(tmp_path: Path) -> None:
    model = Mllm(tiny_spec(encoders={"clip": clip_node(feature_layers=DCI)}), load=False).eval().requires_grad_(False)
    images = image_batch(2, {"clip": 32})
    views = list(images.views["clip"].numpy())
    store = FeatureStore(model, tmp_path, 10**9, {"clip": [[0, 1, 2, 3], 2]})
    assert store.fill(lambda _name: views) == 2
    direct = model.visual_tokens(images)
    taps = [store.lookup("clip", view) for view in views]
    assert taps[0].keys() == {3, (0, 1), (2, 3)}
    assert {path.name.split(".", 1)[1] for path in tmp_path.rglob("*.npy")} >= {"0+1+2+3.npy", "2.npy"}
    images.features = {"clip": {tap: torch.from_numpy(np.stack([part[tap] for part in taps])) for tap in taps[0]}}
    images.views = {}
    assert torch.equal(model.visual_tokens(images), direct)
