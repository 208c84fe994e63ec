"""Every option of the group ``reduction`` keeps the contract; a new YAML file is picked up by itself."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch._subclasses.fake_tensor import FakeTensorMode

from mmexp.errors import UserError
from mmexp.instantiate import instantiate
from mmexp.interfaces import FeatureMap, Grid
from mmexp.model.mllm import Mllm
from mmexp.model.reduction.reduced_grid import smaller_grid
from tests.tiny import image_batch, tiny_spec

CONF = Path(__file__).parents[3] / "conf" / "reduction"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
SMALLER = [name for name in NAMES if name != "none"]
GRID, DIM, FEW = (6, 6), 8, 9


def node(name: str, few: int = FEW, **changes: Any) -> dict[str, Any]:
    own: Any = OmegaConf.load(CONF / f"{name}.yaml")
    bases = [OmegaConf.load(CONF / f"{base}.yaml") for base in own.pop("defaults", []) if base != "_self_"]
    config = OmegaConf.create({"sizes": {"few": few}, "node": OmegaConf.merge(*bases, own)})
    container: Any = OmegaConf.to_container(config, resolve=True)
    return container["node"] | changes


def build(name: str, grid: Grid | None = GRID, **changes: Any) -> Any:
    in_tokens = grid[0] * grid[1] if grid else 36
    return instantiate(node(name, **changes), "reduction", in_tokens=in_tokens, in_grid=grid)


def features(dtype: torch.dtype = torch.float32, grid: Grid = GRID) -> FeatureMap:
    generator = torch.Generator().manual_seed(0)
    return FeatureMap(torch.randn(2, grid[0] * grid[1], DIM, generator=generator).to(dtype), grid)


@pytest.mark.parametrize("name", NAMES)
def test_declared_shape_is_true_and_known_without_memory(name: str) -> None:
    reduction = build(name)
    out = reduction(features())
    assert out.tokens.shape == (2, reduction.num_tokens, DIM)
    assert out.grid == reduction.grid
    assert reduction.num_tokens == (36 if name == "none" else FEW)
    with FakeTensorMode():
        assert build(name)(FeatureMap(torch.empty(2, 36, DIM), GRID)).tokens.shape == out.tokens.shape


@pytest.mark.parametrize("name", NAMES)
def test_input_gets_a_gradient_and_is_not_changed(name: str) -> None:
    source = features()
    before = source.tokens.clone()
    source.tokens.requires_grad_()
    build(name)(source).tokens.square().sum().backward()
    assert torch.equal(source.tokens, before)
    assert source.tokens.grad.abs().sum(-1).all()


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_stays_bfloat16(name: str) -> None:
    exact, low = (build(name)(features(dtype)).tokens for dtype in (torch.float32, torch.bfloat16))
    assert low.dtype == torch.bfloat16
    assert (low - exact).abs().max() < 0.02


@pytest.mark.parametrize("name", SMALLER)
def test_halving_is_the_mean_of_two_by_two(name: str) -> None:
    """Bilinear by one half equals average pooling (papers/dense_connector.md, 3.5)."""
    source = features()
    expected = source.tokens.view(2, 3, 2, 3, 2, DIM).mean(dim=(2, 4)).view(2, 9, DIM)
    assert torch.allclose(build(name)(source).tokens, expected, atol=1e-6)


def test_bilinear_options_do_something() -> None:
    ramp = FeatureMap(torch.arange(36.0)[None, :, None].expand(2, 36, DIM), GRID)
    plain = build("efficient", size=[2, 2])(ramp).tokens[0, :, 0]
    corners = build("efficient", size=[2, 2], align_corners=True)(ramp).tokens[0, :, 0]
    assert corners.tolist() == [0, 5, 30, 35]
    assert plain.tolist() == [7, 10, 25, 28]
    noise = features()
    smooth = build("efficient", size=[2, 2], antialias=True)(noise).tokens
    assert smooth.std() < build("efficient", size=[2, 2])(noise).tokens.std()


@pytest.mark.parametrize(
    ("size", "grid", "expected"),
    [(144, (24, 24), (12, 12)), (196, (27, 27), (14, 14)), ([13, 13], (27, 27), (13, 13)), (8, (4, 8), (2, 4))],
)
def test_sizes(size: Any, grid: Grid, expected: Grid) -> None:
    assert smaller_grid(size, grid) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 10}, r"size: 10 tokens do not make a grid shaped like the 6 x 6 that come in; choose from: 4, 9, 16"),
        ({"size": 49}, "size: 49 tokens do not make a grid"),
        ({"size": [7, 3]}, r"size: \[7, 3\] must be \[rows, columns\] between \[1, 1\] and the \[6, 6\]"),
        ({"size": [0, 3]}, r"size: \[0, 3\]"),
        ({"size": [3]}, r"size: \[3\]"),
        ({"where": "before"}, "where: unknown 'before'; choose from: after_projector, before_projector"),
        ({"grid": None}, "needs tokens in rows and columns"),
    ],
)
@pytest.mark.parametrize("name", SMALLER)
def test_mistakes_are_one_line(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(name, **changes)
    assert str(caught.value).startswith("reduction") and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_counts_the_reduced_tokens(name: str) -> None:
    model = Mllm(tiny_spec(reduction=node(name, few=4)), load=False)
    expected = 16 if name == "none" else 4
    assert model.vision.num_tokens((32, 32)) == expected
    assert model.vision.grid == ((4, 4) if name == "none" else (2, 2))
    images = image_batch(2, {"clip": 32})
    assert model.visual_tokens(images).shape == (2 * expected, 96)


def test_before_the_projector_the_projector_sees_the_few_tokens() -> None:
    before = Mllm(tiny_spec(reduction=node("efficient_before", few=4)), load=False).eval()
    after = Mllm(tiny_spec(reduction=node("efficient", few=4)), load=False).eval()
    after.load_state_dict(before.state_dict())
    seen: list[int] = []
    for model in (before, after):
        model.vision.projector[0].register_forward_pre_hook(lambda _m, args: seen.append(args[0].tokens.shape[1]))
    images = image_batch(2, {"clip": 32})
    assert not torch.allclose(before.visual_tokens(images), after.visual_tokens(images))
    assert seen == [4, 16]


def test_tokens_without_grid_are_refused_by_the_model() -> None:
    layers = {
        "_target_": "mmexp.model.feature_layers.sti.SparseTokenIntegration",
        "layers": ["1/3"],
        "numbering": "relative",
        "final": -2,
        "stride": 8,
        "tail": "drop",
        "pooling": "average",
        "order": "final_first",
    }
    spec = tiny_spec(reduction=node("efficient", few=4))
    spec["encoders"]["clip"]["feature_layers"] = layers
    with pytest.raises(UserError, match=r"reduction: needs tokens in rows and columns.*sti"):
        Mllm(spec, load=False)
