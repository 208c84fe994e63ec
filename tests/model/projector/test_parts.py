"""What single projectors promise: start values, Q-Former parity, merging, wrong arguments."""

import pytest
import torch
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from mmexp.errors import UserError
from mmexp.interfaces import FeatureMap
from mmexp.model.projector.d_abstractor import grid_points
from mmexp.model.projector.token_merge import merge
from tests.model.projector.nodes import GRID, IN_DIM, build, features


@pytest.mark.parametrize(
    "name", ["linear_normal", "mlp6x_silu", "resampler", "q_former", "c_abstractor", "d_abstractor"]
)
def test_honeybee_start_values(name: str) -> None:
    for module in build(name, in_dim=64).modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.25)
            assert module.bias is None or not module.bias.any()


def test_torch_start_values_where_init_std_is_null() -> None:
    torch.manual_seed(0)
    ours = build("linear").linear.weight
    torch.manual_seed(0)
    assert torch.equal(ours, torch.nn.Linear(IN_DIM, ours.shape[0]).weight)


def test_released_resampler_starts_with_equal_tokens_and_the_drawn_one_does_not() -> None:
    for name, equal in (("resampler_pos", True), ("resampler_drawn", False)):
        out = build(name).eval()(features()).tokens
        assert torch.allclose(out, out[:, :1].expand_as(out), atol=1e-6) is equal


def test_d_abstractor_points_and_offsets() -> None:
    points = grid_points(12, (16, 16))
    assert points.shape == (1, 144, 2)
    assert points.min() == 0.03125
    assert points.max() == 0.96875
    assert torch.equal(points[0, 1] > points[0, 0], torch.tensor([True, False]))  # x runs first
    star = build("d_abstractor_star").layers[0].cross_attention.offsets
    assert not star.weight.any()
    # head 0 looks to the right, 1 to 4 tokens away
    assert torch.allclose(star.bias.view(8, 4, 2)[0], torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0]]), atol=1e-6)
    central = build("d_abstractor_central").eval()
    _, positions = central._queries(features().tokens)
    assert (central._references(positions) - 0.5).abs().max() < 0.1


def test_q_former_equals_transformers() -> None:
    ours = build("q_former", depth=3, num_heads=4, prenorm=False).eval()
    config = Blip2QFormerConfig(
        hidden_size=IN_DIM,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=4 * IN_DIM,
        encoder_hidden_size=IN_DIM,
        cross_attention_frequency=2,
        use_qformer_text_input=False,
    )
    theirs = Blip2QFormerModel(config).eval()
    ours.load_state_dict(qformer_names(theirs, ours))
    source = features()
    with torch.no_grad():
        hidden = theirs(query_embeds=ours.queries, encoder_hidden_states=source.tokens).last_hidden_state
        torch.testing.assert_close(ours(source).tokens, ours.output_proj(hidden), rtol=1e-5, atol=1e-5)


def qformer_names(theirs: torch.nn.Module, ours: torch.nn.Module) -> dict[str, torch.Tensor]:
    parts = {
        "attention.attention": "self_attention",
        "attention.output.dense": "self_attention.out",
        "attention.output.LayerNorm": "self_norm",
        "crossattention.attention": "cross_attention",
        "crossattention.output.dense": "cross_attention.out",
        "crossattention.output.LayerNorm": "cross_norm",
        "intermediate_query.dense": "ffn_in",
        "output_query.dense": "ffn_out",
        "output_query.LayerNorm": "ffn_norm",
    }
    state = {key: value for key, value in ours.state_dict().items() if not key.startswith(("layers.", "norm."))}
    generator = torch.Generator().manual_seed(3)
    for key, value in theirs.named_parameters():
        value.data = value.data + 0.2 * torch.randn(value.shape, generator=generator)
        if key.startswith("layernorm."):
            state[key.replace("layernorm.", "norm.")] = value
            continue
        layer, rest = key.removeprefix("encoder.layer.").split(".", 1)
        part = next(part for part in sorted(parts, key=len, reverse=True) if rest.startswith(part + "."))
        state[f"layers.{layer}.{parts[part]}{rest.removeprefix(part)}"] = value
    return state


def test_merge_averages_by_size_and_keeps_the_order() -> None:
    a, b, c = torch.eye(3)
    tokens = torch.stack([a, a, b, b, c, c])[None]
    merged = merge(tokens, 3)
    assert torch.allclose(merged, torch.stack([a, b, c])[None])
    # 2a and 4a make one token, which counts twice when it meets 6a
    twice = merge(torch.stack([2 * a, 4 * a, 6 * a, b, b])[None], 2)
    assert torch.allclose(twice, torch.stack([4 * a, b])[None])


def test_merge_to_any_number() -> None:
    tokens = torch.randn(2, 37, 8)
    assert [merge(tokens, count).shape[1] for count in (37, 36, 19, 5, 1)] == [37, 36, 19, 5, 1]
    assert torch.allclose(merge(tokens, 1)[:, 0], tokens.mean(1), atol=1e-6)


def test_pixel_shuffle_puts_a_block_into_one_token() -> None:
    projector = build("pixel_shuffle")
    seen = []
    projector.norm.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    source = torch.arange(36.0)[None, :, None].expand(1, 36, IN_DIM)
    projector(FeatureMap(source, GRID))
    assert set(seen[0][0, 0].tolist()) == {0.0, 1.0, 6.0, 7.0}
    assert set(seen[0][0, -1].tolist()) == {28.0, 29.0, 34.0, 35.0}


def test_non_square_maps_are_pooled_by_rows_and_columns() -> None:
    grid = (4, 8)
    for name in ("average_pool", "c_abstractor", "d_abstractor"):
        out = build(name, grid=grid, num_tokens=4).eval()(features(grid=grid))
        assert out.grid == (2, 2)
    assert build("pixel_shuffle", grid=grid, num_tokens=8).grid == (2, 4)


WRONG = [
    ("c_abstractor", {"num_tokens": 10}, r"projector\.num_tokens: 10 is not a square number; .* 9 or 16"),
    ("d_abstractor", {"num_tokens": 8}, r"projector\.num_tokens: 8 is not a square"),
    ("average_pool", {"num_tokens": 0}, r"projector\.num_tokens: 0 is not a square number"),
    ("c_abstractor", {"grid": None, "in_tokens": 36}, "c_abstractor needs tokens in rows and columns"),
    ("d_abstractor", {"grid": None, "in_tokens": 36}, "d_abstractor needs tokens in rows and columns"),
    ("average_pool", {"grid": None, "in_tokens": 36}, "average_pool needs tokens in rows and columns"),
    ("pixel_shuffle", {"grid": None, "in_tokens": 36}, "pixel_shuffle needs tokens in rows and columns"),
    ("pixel_shuffle", {"num_tokens": 12}, r"projector\.num_tokens: .* possible: 1, 4, 9, 36"),
    ("token_merge", {"num_tokens": 37}, r"projector\.num_tokens: .* 37 of 36"),
    ("token_merge", {"num_tokens": 0}, r"projector\.num_tokens: 0 must be at least 1"),
    ("resampler", {"num_tokens": -1}, r"projector\.num_tokens: -1 must be at least 1"),
    ("resampler", {"num_heads": 5}, r"projector\.num_heads: 5 heads do not divide the width 32"),
    ("d_abstractor", {"num_heads": 5}, r"projector\.num_heads: 5 heads"),
    ("resampler", {"depth": 0}, r"projector\.depth: 0 must be at least 1"),
    ("q_former", {"depth": 0}, r"projector\.depth: 0 must be at least 1"),
    ("d_abstractor", {"depth": 0}, r"projector\.depth: 0 must be at least 1"),
    ("q_former", {"cross_attention_every": 0}, r"projector\.cross_attention_every: 0"),
    ("c_abstractor", {"block": "convnxt"}, r"projector\.block: unknown 'convnxt'; did you mean 'convnext'"),
    ("c_abstractor", {"block": "none"}, r"set projector\.depth=0"),
    ("c_abstractor", {"depth": 0}, r"projector\.depth: 0 blocks .* projector\.block=none"),
    ("c_abstractor", {"mlp_depth": 0}, r"projector\.mlp_depth: 0 must be at least 1"),
    ("d_abstractor", {"pooled_v_target": "target"}, r"projector\.pooled_v_target: unknown 'target'"),
    ("d_abstractor", {"reference_points": "grit"}, r"projector\.reference_points: unknown 'grit'; did you mean 'grid'"),
    ("d_abstractor", {"offset_init": "stars"}, r"projector\.offset_init: unknown 'stars'; did you mean 'star'"),
    ("mlp2x_gelu", {"activation": "gelo"}, r"projector\.activation: unknown 'gelo'; did you mean 'gelu'"),
    ("mlp2x_gelu", {"depth": 0}, r"projector\.depth: 0 must be at least 1"),
    ("mlp2x_gelu", {"num_eos_tokens": -1}, r"projector\.num_eos_tokens: -1"),
    ("mlp2x_gelu", {"init_std": -0.1}, r"projector\.init_std: -0.1 must be at least 0"),
    ("resampler", {"query_std": -0.1}, r"projector\.query_std: -0.1 must be at least 0"),
    ("resampler", {"hidden_dim": 0}, r"projector\.hidden_dim: 0 must be at least 1"),
    ("resampler", {"dropout": 1.5}, r"projector\.dropout: 1.5 must be at least 0 and below 1"),
    ("q_former", {"dropout": -1}, r"projector\.dropout: -1 must be at least 0 and below 1"),
    ("d_abstractor", {"dropout": -1}, r"projector\.dropout: -1 must be at least 0 and below 1"),
    ("d_abstractor", {"num_points": 0}, r"projector\.num_points: 0 must be at least 1"),
    ("mlp2x_gelu", {"num_tokens": 9}, r"projector\.num_tokens: .* has no such argument"),
]


@pytest.mark.parametrize(("name", "changes", "message"), WRONG)
def test_wrong_arguments_are_one_line(name: str, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(name, **changes)
    assert "\n" not in str(caught.value)
