"""Every encoder family: taps equal the library's own intermediates, shapes are true, later blocks do not run."""

import pytest
import timm
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, Pix2StructImageProcessorPil

from mmexp.errors import UserError
from mmexp.model.encoder.pix2struct_encoder import Pix2StructEncoder
from mmexp.model.encoder.timm_encoder import TimmEncoder
from mmexp.model.encoder.transformers_encoder import TransformersEncoder

STATS = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
CLIP = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
P2S = {
    "hidden_size": 32,
    "patch_embed_hidden_size": 192,
    "d_ff": 64,
    "d_kv": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "seq_len": 64,
    "patch_size": 8,
}
# name, arguments, side of the input
TIMM = [
    ("vit_tiny_patch16_224", {"depth": 3, "embed_dim": 32, "num_heads": 2}, 64),
    ("vit_so400m_patch14_siglip_224", {"depth": 3, "embed_dim": 32, "num_heads": 2}, 56),
    ("vit_small_patch14_reg4_dinov2", {"depth": 3, "embed_dim": 32, "num_heads": 2}, 56),
    ("eva02_tiny_patch14_224", {"depth": 3, "embed_dim": 32, "num_heads": 2}, 56),
    ("samvit_base_patch16_224", {"depth": 3, "embed_dim": 32, "num_heads": 2, "global_attn_indexes": (2,)}, 64),
    ("convnext_atto", {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}, 64),
]


def timm_encoder(name: str, arguments: dict, side: int, **changes) -> TimmEncoder:
    settings = {"weights": "random", "final_norm": False, **STATS, **changes}
    return TimmEncoder(model_name=name, model_args=arguments, image_size=side, **settings).eval()


def clip_encoder(**changes) -> TransformersEncoder:
    settings = {"weights": "random", "final_norm": False, "image_size": 32, "checkpoint": None, **changes}
    return TransformersEncoder(
        model_class="CLIPVisionModel", config=CLIP, num_prefix_tokens=1, **STATS, **settings
    ).eval()


@pytest.mark.parametrize(("name", "arguments", "side"), TIMM)
def test_timm_taps_equal_forward_intermediates(name: str, arguments: dict, side: int) -> None:
    encoder = timm_encoder(name, arguments, side)
    pixels = torch.randn(2, 3, side, side)
    taps = list(range(1, encoder.depth + 1))
    with torch.no_grad():
        ours = encoder(pixels, taps)
        theirs = encoder.network.forward_intermediates(
            pixels, indices=[tap - 1 for tap in taps], norm=False, output_fmt="NCHW", intermediates_only=True
        )
    for tap, mine, reference in zip(taps, ours, theirs, strict=True):
        assert torch.equal(mine.tokens, reference.flatten(2).transpose(1, 2))
        assert mine.shape == encoder.shape(tap)


@pytest.mark.parametrize(("name", "arguments", "side"), TIMM)
def test_stem_has_the_declared_shape_and_stops_before_the_blocks(name: str, arguments: dict, side: int) -> None:
    encoder = timm_encoder(name, arguments, side)
    ran = []
    encoder.blocks()[0].register_forward_hook(lambda *_: ran.append(0))
    (stem,) = encoder(torch.randn(1, 3, side, side), [0])
    assert stem.shape == encoder.shape(0)
    assert not ran


@pytest.mark.parametrize(("name", "arguments", "side"), TIMM)
def test_injection_reaches_later_blocks_and_keeps_class_tokens(name: str, arguments: dict, side: int) -> None:
    encoder = timm_encoder(name, arguments, side)
    pixels = torch.randn(1, 3, side, side)
    with torch.no_grad():
        plain = encoder(pixels, [1, 2])
        same = encoder(pixels, [1, 2], {1: lambda tokens: tokens + 0})
        moved = encoder(pixels, [1, 2], {1: lambda tokens: tokens + ramp(tokens)})
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(plain, same, strict=True))
    assert torch.equal(moved[0].tokens, plain[0].tokens + ramp(plain[0].tokens))
    assert not torch.allclose(moved[1].tokens, plain[1].tokens)


def ramp(tokens: torch.Tensor) -> torch.Tensor:
    """Another number for each channel: a norm would take a constant out again."""
    return torch.linspace(0, 1, tokens.shape[-1])


def test_only_needed_blocks_run() -> None:
    encoder = clip_encoder()
    ran: list[int] = []
    for index, block in enumerate(encoder.blocks()):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    encoder(torch.randn(1, 3, 32, 32), [2, 1])
    assert ran == [0, 1]


def test_clip_taps_are_hidden_states() -> None:
    encoder = clip_encoder()
    pixels = torch.randn(2, 3, 32, 32)
    reference = CLIPVisionModel(CLIPVisionConfig(**CLIP)).eval()
    reference.load_state_dict(encoder.network.state_dict())
    with torch.no_grad():
        states = reference(pixels, output_hidden_states=True).hidden_states
        ours = encoder(pixels, [0, 1, 2, 3])
    for mine, state in zip(ours, states, strict=True):
        assert torch.equal(mine.tokens, state[:, 1:])


def test_interpolation_of_another_size_is_transformers_own() -> None:
    encoder = clip_encoder(image_size=48)
    pixels = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        (ours,) = encoder(pixels, [3])
        theirs = encoder.network(pixels, interpolate_pos_encoding=True).last_hidden_state[:, 1:]
    assert torch.equal(ours.tokens, theirs)
    assert ours.shape == encoder.shape(3)


def test_final_norm_makes_last_hidden_state() -> None:
    config = {**CLIP, "hidden_act": "gelu"}
    encoder = TransformersEncoder(
        model_class="SiglipVisionModel",
        config=config,
        checkpoint=None,
        weights="random",
        image_size=32,
        num_prefix_tokens=0,
        final_norm=True,
        **STATS,
    ).eval()
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(encoder(pixels, [3])[0].tokens, encoder.network(pixels).last_hidden_state)
        assert not torch.allclose(encoder(pixels, [2])[0].tokens, encoder.network(pixels).last_hidden_state)


def test_pix2struct_patches_and_features_are_the_processors() -> None:
    encoder = Pix2StructEncoder(config=P2S, checkpoint=None, weights="random", image_size=32, final_norm=True).eval()
    views = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    processor = Pix2StructImageProcessorPil(patch_size={"height": 8, "width": 8}, is_vqa=False)
    theirs = processor([view.permute(1, 2, 0).numpy() for view in views], max_patches=16, return_tensors="pt")
    patches = encoder.flatten_patches(encoder.normalize(views))
    assert torch.allclose(patches, theirs["flattened_patches"], atol=1e-4)
    with torch.no_grad():
        (ours,) = encoder(encoder.normalize(views), [3])
        reference = encoder.network(**theirs).last_hidden_state
    assert torch.allclose(ours.tokens, reference, atol=1e-4)
    assert ours.shape == encoder.shape(3)


def test_uint8_is_normalised() -> None:
    encoder = clip_encoder()
    views = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    expected = (1 - torch.tensor(STATS["mean"])) / torch.tensor(STATS["std"])
    assert torch.allclose(encoder.normalize(views)[0, :, 0, 0], expected)


@pytest.mark.parametrize("tap", [-1, 4])
def test_a_tap_outside_the_depth_is_refused(tap: int) -> None:
    with pytest.raises(UserError, match="0 \\(stem\\) to 3"):
        clip_encoder()(torch.randn(1, 3, 32, 32), [tap])


def test_weights_that_do_not_fit_or_exist_are_refused(tmp_path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="missing"):
        clip_encoder(weights=str(path))
    with pytest.raises(UserError, match="no such file"):
        clip_encoder(weights=str(tmp_path / "none.safetensors"))
    with pytest.raises(UserError, match=r"not a \.safetensors"):
        clip_encoder(weights="pickled.bin")


def test_unknown_ids_offer_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'vit_tiny_patch16_224'"):
        timm_encoder("vit_tinny_patch16_224", {}, 32)
    with pytest.raises(UserError, match="did you mean 'CLIPVisionModel'"):
        TransformersEncoder(
            model_class="CLIPVisonModel",
            config=CLIP,
            checkpoint=None,
            weights="random",
            image_size=32,
            num_prefix_tokens=1,
            final_norm=False,
            **STATS,
        )


def test_published_ids_exist_in_timm() -> None:
    for name in ("vit_large_patch14_dinov2", "convnext_xxlarge", "samvit_large_patch16", "eva02_large_patch14_448"):
        assert timm.is_model(name)
