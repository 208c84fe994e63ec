"""Every option of the group ``feature_layers`` keeps the contract; a new YAML file is picked up by itself."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensorMode

from mmexp.errors import UserError
from mmexp.interfaces import FeatureMap
from mmexp.model.encoder.block_encoder import check_taps, depths_of
from tests.model.feature_layers.nodes import CASES, NAMES, build, convnext_shapes, maps_of, vit_shapes

ON_STAGES = ("last", "penultimate", "final_repeated", "sci")
"""Options that take maps of different widths, as the stages of a ConvNeXt have."""


@pytest.mark.parametrize(("name", "depth"), CASES)
def test_declared_shape_is_true(name: str, depth: int) -> None:
    layers = build(name, depth=depth)
    check_taps(layers.taps, depth)
    out = layers(maps_of(layers, vit_shapes(depth), views=3))
    assert out.shape == layers.out_shape
    assert out.tokens.shape[0] == 3
    assert out.grid is None or out.grid[0] * out.grid[1] == out.tokens.shape[1]


@pytest.mark.parametrize(("name", "depth"), CASES)
def test_shape_is_known_without_memory(name: str, depth: int) -> None:
    with FakeTensorMode():
        layers = build(name, depth=depth)
        shape = vit_shapes(depth)[0]
        out = layers([FeatureMap(torch.empty(2, shape.num_tokens, shape.dim), shape.grid) for _ in layers.taps])
    assert out.shape == layers.out_shape


@pytest.mark.parametrize(("name", "depth"), CASES)
def test_every_map_and_parameter_gets_a_gradient(name: str, depth: int) -> None:
    layers = build(name, depth=depth).train()
    maps = maps_of(layers, vit_shapes(depth))
    for feature in maps:
        feature.tokens.requires_grad_()
    out = layers(maps).tokens
    (out * torch.randn_like(out)).sum().backward()
    assert all(feature.tokens.grad is not None and feature.tokens.grad.any() for feature in maps)
    without = [key for key, value in layers.named_parameters() if value.grad is None or not value.grad.any()]
    assert not without


@pytest.mark.parametrize("name", NAMES)
def test_maps_are_not_changed(name: str) -> None:
    layers = build(name)
    maps = maps_of(layers, vit_shapes(27))
    before = [feature.tokens.clone() for feature in maps]
    layers(maps)
    assert all(torch.equal(feature.tokens, value) for feature, value in zip(maps, before, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_stays_bfloat16(name: str) -> None:
    layers = build(name)
    exact = layers(maps_of(layers, vit_shapes(27))).tokens
    low = layers.to(torch.bfloat16)(maps_of(layers, vit_shapes(27), dtype=torch.bfloat16)).tokens
    assert low.dtype == torch.bfloat16
    assert (low - exact).abs().max() < 0.03 * exact.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_saves_and_loads(name: str, tmp_path: Path) -> None:
    first, second = build(name), build(name)
    save_file({key: value + 0.5 for key, value in first.state_dict().items()}, tmp_path / "w.safetensors")
    for layers in (first, second):
        layers.load_state_dict(load_file(tmp_path / "w.safetensors"))
    maps = maps_of(first, vit_shapes(27))
    assert torch.equal(first(maps).tokens, second(maps).tokens)


@pytest.mark.parametrize("name", NAMES)
def test_stages_of_a_convnext_work_or_are_refused_in_one_line(name: str) -> None:
    shapes = convnext_shapes()
    if name not in ON_STAGES:
        with pytest.raises(UserError, match=r"of one width.*8 at depth|beyond this encoder") as caught:
            build(name, shapes)
        assert "\n" not in str(caught.value)
        return
    layers = build(name, shapes)
    out = layers(maps_of(layers, shapes))
    assert out.shape == layers.out_shape
    assert layers.out_shape.grid == shapes[max(depths_of(layers.taps))].grid


def test_layers_of_one_width_and_several_grids_are_resized_for_every_choice() -> None:
    shapes = [shape.__class__(shape.num_tokens, 16, shape.grid) for shape in convnext_shapes()]
    for name in ("sti", "sti_conv", "sci_conv", "dci", "dci_linear", "dci_learned"):
        layers = build(name, shapes, final=-1, **({"stride": 2} if "sti" in name else {}))
        assert layers(maps_of(layers, shapes)).shape == layers.out_shape
