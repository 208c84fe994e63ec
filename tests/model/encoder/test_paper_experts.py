"""The experts of scale paper: real sizes on meta tensors, small random weights of the same class for values."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from omegaconf import OmegaConf
from safetensors.torch import save_file

from mmexp.errors import UserError
from mmexp.instantiate import instantiate
from mmexp.interfaces import FeatureShape, ImageBatch
from mmexp.model.encoder.sam_encoder import SamEncoder
from mmexp.model.encoder.timm_encoder import TimmEncoder
from mmexp.model.encoder.transformers_encoder import TransformersEncoder
from mmexp.model.visual import VisionSide
from tests.tiny import mlp_node

FOLDER = Path(__file__).parents[3] / "conf" / "scale" / "paper" / "encoder"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
VARIANTS = ("clip_224_interpolated", "clip_low")
"""Files that change a value of another expert."""
CLIP_MEAN, IMAGENET_MEAN, HALF = 0.48145466, 0.485, 0.5
# px, depth, last map: (side, width), map before: (side, width), millions of parameters (papers/encoders.md; eagle.md)
FACTS: dict[str, tuple[int, int, tuple[int, int], tuple[int, int], float]] = {
    "clip": (336, 24, (24, 1024), (24, 1024), 303.5),
    "clip_224": (224, 24, (16, 1024), (16, 1024), 303.2),
    "clip_224_interpolated": (448, 24, (32, 1024), (32, 1024), 303.2),
    "clip_448": (448, 24, (32, 1024), (32, 1024), 303.5),
    "clip_low": (224, 24, (16, 1024), (16, 1024), 303.2),
    "convnext": (1024, 4, (32, 3072), (64, 1536), 843.4),
    "convnext_l": (768, 4, (24, 1536), (48, 768), 198.6),
    "dinov2": (448, 24, (32, 1024), (32, 1024), 304.4),
    "eva02": (448, 24, (32, 1024), (32, 1024), 304.0),
    "internvit": (448, 24, (32, 1024), (32, 1024), 304.0),
    "pix2struct": (720, 18, (45, 1536), (45, 1536), 512.8),
    "sam": (1024, 24, (32, 1024), (64, 1024), 308.3),
    "sam_blocks": (1024, 24, (64, 1024), (64, 1024), 308.3),
    "siglip": (384, 27, (27, 1152), (27, 1152), 428.2),
}
MEANS = {"convnext_l": CLIP_MEAN, "dinov2": IMAGENET_MEAN, "internvit": IMAGENET_MEAN, "siglip": HALF}
X4 = ["clip_448", "convnext", "pix2struct", "eva02"]
X5 = ["clip_448", "convnext", "sam", "pix2struct", "eva02"]


def node(name: str, **changes: Any) -> dict[str, Any]:
    """The YAML of an expert without resolution and feature_layers."""
    loaded: Any = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    base = node(loaded.pop("defaults")[0].removesuffix("@_here_")) if "defaults" in loaded else {}
    own = {key: value for key, value in loaded.items() if key not in ("resolution", "feature_layers")}
    return base | own | changes


def on_meta(name: str) -> Any:
    with torch.device("meta"):
        return instantiate(node(name), f"model.encoders.{name}", load=False)


def expert_node(name: str) -> dict[str, Any]:
    resolution = {"_target_": "mmexp.model.resolution.resize.Resize"}
    last = {"_target_": "mmexp.model.feature_layers.single.SingleLayer", "layer": -1}
    return {**node(name), "resolution": resolution, "feature_layers": last}


def test_every_expert_has_its_facts_here() -> None:
    assert set(NAMES) == set(FACTS)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_at_the_real_size(name: str) -> None:
    side, depth, (grid, dim), (grid_before, dim_before), millions = FACTS[name]
    encoder = on_meta(name)
    assert encoder.depth == depth
    assert encoder.shape(depth) == FeatureShape(grid * grid, dim, (grid, grid))
    assert encoder.shape(depth - 1) == FeatureShape(grid_before**2, dim_before, (grid_before, grid_before))
    views = torch.zeros(1, 3, side, side, dtype=torch.uint8, device="meta")
    with torch.no_grad():
        maps = encoder(encoder.normalize(views), [0, depth - 1, depth])
    assert [part.shape for part in maps] == [encoder.shape(tap) for tap in (0, depth - 1, depth)]
    count = sum(parameter.numel() for parameter in encoder.parameters())
    assert abs(count / 1e6 - millions) < 0.7


@pytest.mark.parametrize("name", [name for name in NAMES if "mean" in node(name)])
def test_statistics_are_the_weights_own(name: str) -> None:
    own = node(name)
    if "model_name" in own:
        config = timm.get_pretrained_cfg(own["model_name"])
        assert (tuple(own["mean"]), tuple(own["std"])) == (config.mean, config.std)
    expected = MEANS.get(name, IMAGENET_MEAN if name.startswith("sam") else CLIP_MEAN)
    assert own["mean"][0] == expected


def test_openai_weights_have_their_activation() -> None:
    for name in ("clip", "clip_224", "clip_448"):
        assert node(name)["config"]["hidden_act"] == "quick_gelu"


VIT = {"depth": 3, "embed_dim": 32, "num_heads": 2}
SMALL = {
    "convnext": ({"depths": [1, 1, 2, 1], "dims": [8, 16, 24, 32]}, 64),
    "convnext_l": ({"depths": [1, 1, 2, 1], "dims": [8, 16, 24, 32]}, 64),
    "dinov2": (VIT, 56),
    "eva02": (VIT, 56),
    "internvit": (VIT, 56),
    "sam_blocks": ({**VIT, "global_attn_indexes": (2,)}, 64),
}


@pytest.mark.parametrize("name", SMALL)
def test_values_of_the_same_timm_class_with_small_random_weights(name: str) -> None:
    arguments, side = SMALL[name]
    own = node(name)
    encoder = instantiate({**own, "model_args": arguments, "image_size": side, "weights": "random"}, name).eval()
    pixels = torch.randn(2, 3, side, side)
    with torch.no_grad():
        theirs = encoder.network.forward_intermediates(
            pixels, indices=list(range(encoder.depth)), norm=False, output_fmt="NCHW", intermediates_only=True
        )
        ours = encoder(pixels, range(1, encoder.depth + 1))
        final = encoder.network.forward_features(pixels)
    for mine, reference in list(zip(ours, theirs, strict=True))[: -1 if own["final_norm"] else None]:
        assert torch.equal(mine.tokens, reference.flatten(2).transpose(1, 2))
    if own["final_norm"]:
        assert torch.equal(ours[-1].tokens, final[:, encoder.num_prefix_tokens :])


TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}


@pytest.mark.parametrize("name", ["clip", "clip_224", "clip_448", "siglip"])
def test_values_of_the_same_transformers_class_with_small_random_weights(name: str) -> None:
    own = node(name)
    config = {**own["config"], **TINY, "image_size": 56}
    side = 84 if name == "clip_448" else 56
    encoder = instantiate({**own, "config": config, "image_size": side, "weights": "random"}, name).eval()
    cls: Any = getattr(transformers, own["model_class"])
    reference = cls(cls.config_class(**config)).eval()
    reference.load_state_dict(encoder.network.state_dict())
    pixels = torch.randn(2, 3, side, side)
    with torch.no_grad():
        ours = encoder(pixels, range(4))
        states = reference(
            pixels, output_hidden_states=True, interpolate_pos_encoding=side != config["image_size"]
        ).hidden_states
    for mine, state in zip(ours, states, strict=True):
        assert torch.equal(mine.tokens, state[:, own["num_prefix_tokens"] :])


def small_sam(**changes: Any) -> SamEncoder:
    torch.manual_seed(0)
    arguments = {**VIT, "global_attn_indexes": (2,), "neck_chans": 6}
    changes = {"model_args": arguments, "image_size": 64, "weights": "random", **changes}
    return instantiate({**node("sam"), **changes}, "sam").eval()


def test_sam_ends_with_its_own_neck_and_an_unshuffle() -> None:
    encoder = small_sam()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before, last = encoder(pixels, [2, 3])
        neck = encoder.network.forward_features(pixels)
    assert (before.grid, last.grid) == ((4, 4), (2, 2))
    assert [before.shape, last.shape] == [encoder.shape(2), encoder.shape(3)]
    expected = torch.nn.functional.pixel_unshuffle(neck, 2).flatten(2).transpose(1, 2)
    assert torch.equal(last.tokens, expected)


def test_a_drawn_neck_is_the_same_in_every_stage() -> None:
    first = small_sam(neck="drawn")
    torch.manual_seed(1)
    other_depth = {**VIT, "depth": 2, "global_attn_indexes": (1,), "neck_chans": 6}
    second = instantiate({**node("sam", neck="drawn"), "model_args": other_depth, "weights": "random"}, "sam")
    one, two = (encoder.network.neck.state_dict() for encoder in (first, second))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert one["0.weight"].abs().max() <= 32**-0.5
    assert first.shape(3).dim == 24


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"neck": "own"}, "neck: unknown 'own'; choose from: drawn, pretrained"),
        ({"unshuffle": 3}, "unshuffle: 3 does not divide SAM's 4 x 4 tokens"),
        ({"model_name": "vit_tiny_patch16_224", "model_args": VIT}, "'vit_tiny_patch16_224' is not a SAM network"),
    ],
)
def test_a_sam_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small_sam(**changes)


RESIZED = [
    ("vit_large_patch14_clip_quickgelu_224", 1, False),
    ("vit_large_patch14_reg4_dinov2", 5, True),
    ("vit_so400m_patch14_siglip_224", 0, False),
    ("eva02_large_patch14_224", 1, False),
    ("vit_intern300m_patch14_448", 1, False),
]


def timm_encoder(name: str, arguments: dict[str, Any], side: int, weights: str) -> TimmEncoder:
    return TimmEncoder(
        model_name=name,
        model_args=arguments,
        weights=weights,
        image_size=side,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        final_norm=False,
    ).eval()


@pytest.mark.parametrize(("name", "prefix", "separate"), RESIZED)
def test_timms_weights_of_another_size_are_interpolated_as_timm_does(
    name: str, prefix: int, separate: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a file, and through timm's own loader as from the hub; compared with timm's ``set_input_size``."""
    monkeypatch.setattr("mmexp.hub.reachable", lambda: True)
    torch.manual_seed(0)
    reference = timm.create_model(name, img_size=56, num_classes=0, **VIT).eval()
    torch.nn.init.normal_(reference.pos_embed)
    path = str(tmp_path / "weights.safetensors")
    save_file({key: value.contiguous() for key, value in reference.state_dict().items()}, path)
    assert (reference.num_prefix_tokens, reference.pos_embed.shape[1] == 16) == (prefix, separate or not prefix)
    reference.set_input_size((84, 84))
    pixels = torch.randn(1, 3, 84, 84)
    overlay = {"pretrained_cfg_overlay": {"file": path}}
    with torch.no_grad():
        theirs = reference.forward_intermediates(pixels, indices=[2], norm=False, intermediates_only=True)[0]
        for arguments, weights in ((VIT, path), ({**VIT, **overlay}, "hub")):
            (ours,) = timm_encoder(name, arguments, 84, weights)(pixels, [3])
            assert ours.grid == (6, 6)
            assert torch.allclose(ours.tokens, theirs.flatten(2).transpose(1, 2), atol=1e-5)


def test_weights_of_another_shape_are_refused_in_one_line(tmp_path: Path) -> None:
    path = str(tmp_path / "weights.safetensors")
    save_file(timm_encoder("vit_tiny_patch16_224", VIT, 64, "random").network.state_dict(), path)
    with pytest.raises(UserError, match=r"does not fit timm/vit_tiny_patch16_224: size mismatch for") as caught:
        timm_encoder("vit_tiny_patch16_224", {**VIT, "embed_dim": 48, "num_heads": 3}, 64, path)
    assert "\n" not in str(caught.value)


def test_transformers_position_embedding_is_resized_bicubically() -> None:
    own = node("clip_448")
    config = {**own["config"], **TINY, "image_size": 56}
    encoder = instantiate({**own, "config": config, "image_size": 84, "weights": "random"}, "clip_448").eval()
    assert isinstance(encoder, TransformersEncoder)
    embeddings = next(part for name, part in encoder.network.named_modules() if name.endswith("embeddings"))
    native = instantiate({**own, "config": {**config, "image_size": 84}, "image_size": 84, "weights": "random"}, "x")
    state = dict(encoder.network.state_dict())
    key = next(name for name in state if name.endswith("position_embedding.weight"))
    grid = embeddings.position_embedding.weight[1:].T.unflatten(1, (4, 4))[None]
    resized = torch.nn.functional.interpolate(grid, size=(6, 6), mode="bicubic", align_corners=False)
    state[key] = torch.cat([state[key][:1], resized[0].flatten(1).T])
    native.network.load_state_dict({name: value for name, value in state.items() if "position_ids" not in name})
    pixels = torch.randn(1, 3, 84, 84)
    with torch.no_grad():
        assert torch.allclose(encoder(pixels, [3])[0].tokens, native.eval()(pixels, [3])[0].tokens, atol=1e-5)


def test_every_combination_of_experts_shares_one_grid() -> None:
    """All subsets on 32 x 32; the widths add up: X4 6,656, X5 7,680, CLIP and ConvNeXt 4,096 (eagle.md, 4.1)."""
    experts = [name for name in NAMES if name not in VARIANTS]
    shapes = {name: (encoder := on_meta(name)).shape(encoder.depth) for name in experts}
    fusion = {"_target_": "mmexp.model.fusion.channel_concat.ChannelConcat", "grid": [32, 32], "route": "bilinear"}

    def width(names: tuple[str, ...] | list[str]) -> int:
        chosen = {name: shapes[name] for name in names}
        (stream,) = instantiate(fusion, "fusion", shapes=chosen, tap_shapes={}).streams
        assert stream.grid == (32, 32)
        return stream.dim

    for count in range(1, len(experts) + 1):
        for names in itertools.combinations(experts, count):
            assert width(names) == sum(shapes[name].dim for name in names)
    assert [width(names) for names in (X4, X5, X5[:2])] == [6656, 7680, 4096]


@pytest.mark.parametrize(("names", "channels"), [(X4, 6656), (X5, 7680), ([*X5, "dinov2"], 8704), (["sam"], 1024)])
def test_eagles_mixtures_run_at_their_real_size(names: list[str], channels: int) -> None:
    fusion = {"_target_": "mmexp.model.fusion.channel_concat.ChannelConcat", "grid": [32, 32], "route": "bilinear"}
    spec = {
        "encoders": {name: expert_node(name) for name in names},
        "fusion": fusion,
        "projector": mlp_node(),
        "reduction": {"_target_": "mmexp.model.reduction.none.NoReduction"},
    }
    with torch.device("meta"):
        vision = VisionSide(spec, out_dim=4096, load=False)
        sides = {name: FACTS[name][0] for name in names}
        views = {name: torch.zeros(1, 3, side, side, dtype=torch.uint8) for name, side in sides.items()}
        with torch.no_grad():
            tokens = vision(ImageBatch(views=views, view_counts=[1], sizes=[(640, 480)]))
    assert vision.fusion.streams == [FeatureShape(1024, channels, (32, 32))]
    assert [part.shape for part in tokens] == [(1024, 4096)]
    projector = sum(parameter.numel() for parameter in vision.projector.parameters())
    assert projector == channels * 4096 + 4096 + 4096 * 4096 + 4096
