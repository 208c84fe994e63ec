"""Each fusion does what it is named for."""

from typing import Any

import pytest
import torch

from mmexp.errors import UserError
from mmexp.interfaces import FeatureMap, FeatureShape
from mmexp.model.fusion.deformable import cell_centres
from mmexp.model.fusion.mini_gemini import stages
from mmexp.model.mllm import Mllm
from tests.model.fusion.nodes import SEVERAL, THREE, TWO, build, maps, moved, node, roughened
from tests.tiny import clip_node, convnext_node, image_batch, tiny_spec

STAGES = [(8, (16, 16)), (8, (16, 16)), (12, (8, 8)), (16, (4, 4))]


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("experts", [TWO, THREE], ids=["two", "three"])
def test_streams_are_as_declared_and_everything_gets_a_gradient(name: str, experts: dict) -> None:
    fusion = roughened(build(name, experts))
    features = maps(experts)
    for (selected,) in features.values():
        selected.tokens.requires_grad_()
    inject = fusion.inject(fusion.run_order()[-1], features) or {}
    first = next(iter(features))
    for change in inject.values():
        features[first] = [FeatureMap(change(features[first][0].tokens), features[first][0].grid)]
    streams = fusion(features)
    assert [stream.shape for stream in streams] == fusion.streams
    torch.stack([stream.tokens.square().sum() for stream in streams]).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in fusion.parameters())


@pytest.mark.parametrize("name", SEVERAL)
def test_every_expert_reaches_the_result(name: str) -> None:
    fusion = roughened(build(name, THREE))
    features = maps(THREE)
    for expert in THREE:
        with torch.no_grad():
            before = torch.cat([stream.tokens for stream in fusion(features)], dim=-1)
            changed = FeatureMap(features[expert][0].tokens.flip(-1), THREE[expert][1])
            other = {**features, expert: [changed]}
            after = torch.cat([stream.tokens for stream in fusion(other)], dim=-1)
        assert not torch.allclose(before, after, atol=1e-3), expert


def test_sequence_append_is_one_stream_per_expert_in_the_order_of_the_config() -> None:
    fusion = build("sequence_append", THREE)
    features = maps(THREE)
    low, high, third = fusion(features)
    assert [stream.shape for stream in (low, high, third)] == fusion.streams
    assert {stream.grid for stream in fusion.streams} == {(4, 4)}
    assert torch.equal(low.tokens, features["low"][0].tokens)
    assert torch.equal(third.tokens, features["third"][0].tokens)
    assert high.tokens.shape == (2, 16, 24)


def test_channel_concat_puts_channels_in_the_order_of_the_config() -> None:
    features = maps(THREE)
    forward = build("channel_concat", THREE)(features)[0].tokens
    backward = build("channel_concat", dict(reversed(THREE.items())), grid=[4, 4])(features)[0].tokens
    low, high, third = forward.split([16, 24, 10], dim=-1)
    assert torch.equal(low, features["low"][0].tokens)
    assert torch.equal(backward, torch.cat([third, high, low], dim=-1))


def test_one_expert_alone_is_passed_on_or_resized() -> None:
    alone = {"high": TWO["high"]}
    features = maps(alone)
    for name in ("channel_concat", "sequence_append"):
        assert torch.equal(build(name, alone)(features)[0].tokens, features["high"][0].tokens)
        assert build(name, alone, grid=[4, 4])(features)[0].shape == FeatureShape(16, 24, (4, 4))


def test_resizing_keeps_places_and_pixel_shuffle_keeps_values() -> None:
    rows = torch.linspace(0, 1, 8)[:, None].expand(8, 8).reshape(1, 64, 1).repeat(1, 1, 24)
    features = {**maps(TWO, views=1), "high": [FeatureMap(rows, (8, 8))]}
    smooth = build("channel_concat")(features)[0].tokens[0, :, 16:].unflatten(0, (4, 4))
    assert torch.allclose(smooth[:, 0, 0], torch.linspace(0, 1, 4), atol=1e-6)
    assert torch.equal(smooth[:, 0], smooth[:, 3])
    features = maps(TWO, views=1)
    shuffled = build("channel_concat", route="pixel_shuffle")(features)[0]
    assert shuffled.shape == FeatureShape(16, 16 + 4 * 24, (4, 4))
    source = features["high"][0].tokens.unflatten(1, (8, 8))[0, :2, :2]
    assert torch.equal(shuffled.tokens[0, 0, 16:].sort().values, source.flatten().sort().values)


def test_pixel_shuffle_also_brings_a_coarse_map_to_a_finer_grid() -> None:
    coarse = {"low": (6, (4, 4)), "high": (8, (2, 2))}
    fusion = build("channel_concat", coarse, route="pixel_shuffle")
    assert fusion(maps(coarse))[0].shape == fusion.streams[0] == FeatureShape(16, 6 + 2, (4, 4))


def test_mini_gemini_sees_its_own_window_and_nothing_else() -> None:
    fusion = build("mini_gemini")
    features = maps(TWO)
    for row, column in ((0, 0), (3, 5), (7, 7)):
        changed = moved(fusion, features, "high", row * 8 + column)
        expected = torch.zeros(4, 4, dtype=torch.bool)
        expected[row // 2, column // 2] = True
        assert torch.equal(changed, expected.flatten())


def test_mini_gemini_is_attention_within_the_window() -> None:
    fusion = build("mini_gemini")
    features = maps(TWO)
    miner = fusion.miners["high"]
    window = features["high"][0].tokens.unflatten(1, (8, 8))[:, 2:4, 4:6].flatten(1, 2)
    with torch.no_grad():
        query, keys, values = miner.query(features["low"][0].tokens[:, 6]), miner.key(window), miner.value(window)
        weights = torch.einsum("wd,wkd->wk", query, keys).div(16**0.5).softmax(-1)
        expected = features["low"][0].tokens[:, 6] + torch.einsum("wk,wkd->wd", weights, values)
        assert torch.allclose(fusion(features)[0].tokens[:, 6], expected, atol=1e-5)


def test_mini_gemini_takes_all_stages_of_a_hierarchical_expert_at_the_first_ones_resolution() -> None:
    shapes = [FeatureShape(grid[0] * grid[1], dim, grid) for dim, grid in STAGES]
    experts = {"low": (16, (4, 4)), "high": (16, (4, 4))}
    fusion = build("mini_gemini", experts, tap_shapes={"high": shapes})
    assert fusion.extra_taps() == {"high": (1, 2, 3)}
    assert fusion.windows["high"] == (4, 4)
    assert fusion.miners["high"].key[0].normalized_shape == (8 + 12 + 16,)
    single = build("mini_gemini", experts, tap_shapes={"high": shapes}, multi_stage=False)
    assert single.extra_taps() == {}
    assert single.windows["high"] == (1, 1)


def test_a_chosen_window_resizes_the_map() -> None:
    odd = {"low": (16, (4, 4)), "high": (24, (5, 5))}
    assert build("mini_gemini", odd, window=2)(maps(odd))[0].shape == FeatureShape(16, 16, (4, 4))
    with pytest.raises(UserError, match=r"fusion\.window: 0"):
        build("mini_gemini", odd, window=0)


def test_deformable_starts_near_its_reference_points() -> None:
    fusion = build("deformable")
    features = maps(TWO)
    centre = (2 * 1 + 1) * 8 + (2 * 2 + 1)  # a token of the 8 x 8 map in the cell of token (1, 2) of the 4 x 4 one
    changed = moved(fusion, features, "high", centre).unflatten(0, (4, 4))
    assert changed[1, 2]
    reach = node("deformable")["num_points"] + 1
    for row in range(4):
        for column in range(4):
            away = max(abs(2 * row + 0.5 - 3), abs(2 * column + 0.5 - 5))
            assert not changed[row, column] or away <= reach, (row, column)
    narrow = moved(build("deformable", num_points=1), features, "high", centre).unflatten(0, (4, 4))
    assert narrow.sum() < changed.sum()
    assert narrow[1, 2] and not narrow[3].any() and not narrow[:, 0].any()


def test_deformable_reads_where_the_offsets_point() -> None:
    fusion = build("deformable", num_points=1, num_heads=1)
    attention = fusion.attention
    with torch.no_grad():
        attention.offsets.bias.copy_(
            torch.tensor([2.5, -1.5])
        )  # from a cell's centre to a token's centre: half a token
        attention.values[0].weight.copy_(torch.eye(16, 24))
        attention.out.weight.copy_(torch.eye(16))
        features = maps(TWO)
        read = fusion(features)[0].tokens - features["low"][0].tokens
    expected = features["high"][0].tokens.unflatten(1, (8, 8))[:, 2 * 2 - 1, 2 * 1 + 3, :16]
    assert torch.allclose(read.unflatten(1, (4, 4))[:, 2, 1], expected, atol=1e-5)


def test_reference_points_are_the_centres_of_cells_in_reading_order() -> None:
    assert torch.allclose(cell_centres((1, 2)), torch.tensor([[0.25, 0.5], [0.75, 0.5]]))


def two_encoders(fusion: str, **changes: Any) -> Mllm:
    encoders = {"clip": clip_node(), "convnext": convnext_node()}
    torch.manual_seed(0)
    return Mllm(tiny_spec(encoders=encoders, fusion=node(fusion, **changes)), load=False).eval()


def test_llava_hr_starts_as_identity_and_adds_between_blocks() -> None:
    model = two_encoders("llava_hr", num_adapters=2)
    vision = model.vision
    assert vision.fusion.places == [1, 2]  # of the three blocks that the penultimate layer reads
    assert vision.fusion.run_order() == ["convnext", "clip"]
    images = image_batch(2, {"clip": 32, "convnext": 128})
    pixels = vision.encoders["clip"].normalize(images.views["clip"])
    with torch.no_grad():
        alone = vision.encoders["clip"](pixels, [1, 2, 3])
        assert torch.equal(vision._encode(images)["clip"][0].tokens, alone[2].tokens)
        roughened(vision.fusion.adapters)
        inject = vision.fusion.inject("clip", vision._encode(images))
        changed = vision.encoders["clip"](pixels, [1, 2, 3], inject)
    adapter = vision.fusion.adapters["convnext"][0]
    with torch.no_grad():
        slow = vision._encode(images)["convnext"][0]
        assert torch.allclose(changed[0].tokens, adapter(alone[0].tokens, slow), atol=1e-6)
    assert not torch.allclose(changed[2].tokens, alone[2].tokens)


def test_llava_hr_cuts_the_blocks_into_equal_groups() -> None:
    experts = {"low": (16, (4, 4)), "high": (8, (2, 2))}
    assert build("llava_hr", experts).places == [2, 4, 6]
    assert build("llava_hr", experts, num_adapters=1).places == [4]


def test_llava_hr_has_the_parameters_of_the_original() -> None:
    """48.4M for CLIP-L and ConvNeXt-XXL (section 4.2 of the fact sheet)."""
    with torch.device("meta"):
        experts = {"clip": (1024, (32, 32)), "convnext": (3072, (32, 32))}
        fusion = build("llava_hr", experts)
    count = sum(parameter.numel() for parameter in fusion.parameters())
    adapters = sum(parameter.numel() for parameter in fusion.adapters.parameters())
    assert round(adapters / 3e6, 2) == 14.74
    assert round(count / 1e6, 1) == 48.4


@pytest.mark.parametrize(("dim", "millions"), [(5760, 12.9), (3072, 7.4)])
def test_mini_gemini_has_the_parameters_of_the_original(dim: int, millions: float) -> None:
    with torch.device("meta"):
        fusion = build("mini_gemini", {"clip": (1024, (32, 32)), "convnext": (dim, (256, 256))})
    assert round(sum(parameter.numel() for parameter in fusion.parameters()) / 1e6, 1) == millions
    assert fusion.windows["convnext"] == (8, 8)


@pytest.mark.parametrize("name", SEVERAL)
def test_the_composed_model_trains_the_fusion(name: str) -> None:
    model = two_encoders(name, **({"num_adapters": 2} if name == "llava_hr" else {}))
    roughened(model.vision.fusion)
    images = image_batch(2, {"clip": 32, "convnext": 128})
    for encoder in model.vision.encoders.values():
        encoder.requires_grad_(False)
    tokens = model.visual_tokens(images)
    assert len(tokens) == 2 * model.vision.num_tokens((32, 32))
    tokens.square().sum().backward()
    for key, parameter in model.vision.fusion.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), key
    assert all(parameter.grad is None for parameter in model.vision.encoders.parameters())


@pytest.mark.parametrize("name", SEVERAL)
def test_bfloat16_stays_close(name: str) -> None:
    fusion, features = build(name, THREE), maps(THREE)
    with torch.no_grad():
        exact = torch.cat([stream.tokens for stream in fusion(features)], dim=-1)
        narrow = {key: [FeatureMap(part.tokens.bfloat16(), part.grid)] for key, (part,) in features.items()}
        rounded = torch.cat([stream.tokens for stream in fusion.bfloat16()(narrow)], dim=-1)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).abs().mean() < 0.02 * exact.abs().mean()


@pytest.mark.parametrize(
    ("sides", "expected"),
    [([16, 16, 8, 8, 8], (1, 2, 3, 4)), ([8, 8, 4, 2], (1, 2, 3)), ([8, 8, 8, 4], ()), ([8, 8, 8, 8], ())],
)
def test_an_expert_is_hierarchical_when_its_grid_shrinks_before_its_last_map(
    sides: list[int], expected: tuple[int, ...]
) -> None:
    """The third is SAM behind its neck."""
    assert stages([FeatureShape(side * side, 8, (side, side)) for side in sides]) == expected
