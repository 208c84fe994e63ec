"""What each choice computes: row-major pooling, shared modules, means, controls, published parameter counts."""

import torch

from mmexp.interfaces import FeatureMap, FeatureShape
from tests.model.feature_layers.nodes import build, maps_of, select, vit_shapes

CLIP = [FeatureShape(576, 1024, (24, 24))] * 25
SIGLIP = [FeatureShape(729, 1152, (27, 27))] * 28


def constant_states(shapes: list[FeatureShape]) -> list[FeatureMap]:
    """The map of depth i is i everywhere."""
    return [FeatureMap(torch.full((1, s.num_tokens, s.dim), float(i)), s.grid) for i, s in enumerate(shapes)]


def values(option: str, depth: int, **changes: object) -> list[float]:
    """Mean of each width-D part of the channels, for the states of ``constant_states``."""
    shapes = vit_shapes(depth)
    layers = build(option, shapes, **changes)
    out = layers(select(layers.taps, constant_states(shapes))).tokens
    return [part.mean().item() for part in out.split(shapes[0].dim, dim=2)]


def test_oracles_of_the_fact_sheet() -> None:
    assert values("sci_official", 24) == [23, 7, 15]
    assert values("dci_official", 24) == [23, 5.5, 17.5]
    assert values("sci_official", 27) == [26, 7, 15]
    assert values("dci_official_siglip", 27) == [26, 6, 19]


def test_numbers_of_tokens_and_widths_are_the_published_ones() -> None:
    assert build("sti_official", CLIP).out_shape == FeatureShape(720, 1024, None)
    assert build("sti_official", CLIP, layers=[8, 16, 20]).out_shape.num_tokens == 792
    assert build("sti_official", SIGLIP).out_shape.num_tokens == 729 + 2 * 91
    assert build("sti_official", SIGLIP, tail="keep").out_shape.num_tokens == 729 + 2 * 92
    assert build("dci_official", CLIP).out_shape == FeatureShape(576, 3072, (24, 24))
    assert build("dci", CLIP, groups=3).out_shape.dim == 4096


def test_learned_modules_have_the_published_parameters() -> None:
    def count(option: str, **changes: object) -> int:
        return sum(parameter.numel() for parameter in build(option, CLIP, **changes).parameters())

    with torch.device("meta"):
        assert count("sti_conv") == 8_389_632
        assert count("sti_conv", pooling="conv_per_layer") == 2 * 8_389_632
        assert count("sci_conv") == 9_438_208
        assert count("dci_linear") == 1_051_648
        assert count("dci_learned") == 24
        assert count("dci") == count("sti") == count("sci") == 0


def test_controls() -> None:
    assert values("dci_one_group", 24) == [23, 11.5]
    assert values("dci_groups_only", 24) == [5.5, 17.5]
    assert values("final_repeated", 24) == [23, 23, 23]
    assert values("dci_sum", 24) == [23, 66, 210]
    assert torch.tensor(values("layer_weights", 24)).allclose(torch.tensor(11.5))
    widths = [build(option, CLIP).out_shape.dim for option in ("final_repeated", "sci", "dci")]
    assert widths == [3072] * 3, "equal parameters in the projector"


def test_learned_weights_weigh() -> None:
    shapes = vit_shapes(4)
    layers = build("layer_weights", shapes)
    with torch.no_grad():
        layers.logits[0].copy_(torch.tensor([0.0, 0.0, 50.0, 0.0]))
    assert layers(select(layers.taps, constant_states(shapes))).tokens.mean().item() == 2


def test_sti_pools_neighbours_in_row_major_order_and_drops_or_keeps_the_tail() -> None:
    shapes = vit_shapes(6)
    for tail, expected in (("drop", [3.5, 11.5, 19.5]), ("keep", [3.5, 11.5, 19.5, 24.0])):
        layers = build("sti", shapes, tail=tail, layers=["1/3"])
        numbers = torch.arange(25.0)[None, :, None].expand(1, 25, 12)
        out = layers([FeatureMap(torch.zeros(1, 25, 12), (5, 5)), FeatureMap(numbers, (5, 5))]).tokens
        assert out[0, 25:, 0].tolist() == expected
        assert not out[0, :25].any()


def test_sti_order() -> None:
    shapes = vit_shapes(6)
    first, last = (build("sti", shapes, order=order) for order in ("final_first", "final_last"))
    maps = maps_of(first, shapes)
    there, here = first(maps).tokens, last(maps).tokens
    assert torch.equal(there[:, :25], here[:, -25:])
    assert torch.equal(there[:, 25:], here[:, :-25])


def test_a_conv_with_equal_weights_is_the_average() -> None:
    shapes = vit_shapes(6)
    plain, conv = build("sti", shapes), build("sti_conv", shapes)
    with torch.no_grad():
        conv.convs[0].weight.copy_(torch.eye(12)[:, :, None].expand(12, 12, 8) / 8)
        conv.convs[0].bias.zero_()
    maps = maps_of(plain, shapes)
    assert torch.allclose(plain(maps).tokens, conv(maps).tokens, atol=1e-6)


def test_a_conv_that_keeps_the_middle_is_plain_sci() -> None:
    shapes = vit_shapes(6)
    plain, conv = build("sci", shapes), build("sci_conv", shapes)
    with torch.no_grad():
        conv.conv.weight.zero_()
        conv.conv.weight[:, :, 1, 1] = torch.eye(12)
        conv.conv.bias.zero_()
    maps = maps_of(plain, shapes)
    assert torch.allclose(plain(maps).tokens, conv(maps).tokens, atol=1e-6)


def test_norm_and_linear_before_the_mean_not_on_the_final_layer() -> None:
    """As Table 6 defines it: each layer through both, then the mean (here the linear map is taken after it)."""
    shapes = vit_shapes(6)
    for reduce in ("mean", "sum"):
        layers = build("dci_linear", shapes, reduce=reduce)
        maps = maps_of(layers, shapes)
        final, members = maps[0].tokens, [layers.linear(layers.norm(part.tokens)) for part in maps[1:]]
        first, second = (torch.stack(half) for half in (members[:3], members[3:]))
        parts = [getattr(half, reduce)(0) for half in (first, second)]
        assert torch.allclose(layers(maps).tokens, torch.cat([final, *parts], dim=2), atol=1e-5)


def test_maps_of_other_grids_are_averaged_down_to_the_final_grid() -> None:
    shapes = [FeatureShape(64, 2, (8, 8)), FeatureShape(64, 2, (8, 8)), FeatureShape(16, 3, (4, 4))]
    layers = build("sci", shapes, layers=[1], numbering="hf", final=-1)
    large = torch.arange(64.0).view(1, 64, 1).expand(1, 64, 2)
    out = layers([FeatureMap(torch.zeros(1, 16, 3), (4, 4)), FeatureMap(large, (8, 8))]).tokens
    assert out.shape == (1, 16, 5)
    inner = out[0, :, 3].view(4, 4)[1:-1, 1:-1]
    centre = large[0, :, 0].view(1, 1, 8, 8)
    assert torch.allclose(inner, torch.nn.functional.avg_pool2d(centre, 2)[0, 0, 1:-1, 1:-1], atol=1e-4)
