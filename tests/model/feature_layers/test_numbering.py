"""Layer numbers: three ways to name a layer of real networks agree, shares follow the depth, mistakes are one line."""

from typing import Any

import pytest
import torch

from mmexp.errors import UserError
from mmexp.model.feature_layers.numbering import group_taps, layer_taps, tap_of
from tests.model.encoder.test_encoders import TIMM, clip_encoder, timm_encoder
from tests.model.feature_layers.nodes import build, vit_shapes

PAPER_LAYER = 3
"""Of an encoder of three blocks: the last but one."""
NUMBERS = {"paper": PAPER_LAYER, "hf": PAPER_LAYER - 1, "block": PAPER_LAYER - 2}


def one_layer(encoder: Any, numbering: str, layer: int) -> torch.Tensor:
    """What ``sci`` reads of this encoder for a layer, beside the last block's map."""
    shapes = [encoder.shape(tap) for tap in range(encoder.depth + 1)]
    layers = build("sci", shapes, numbering=numbering, layers=[layer], final=-1)
    pixels = torch.randn(2, 3, encoder.image_size, encoder.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = layers(encoder(pixels, layers.taps)).tokens
    return out[:, :, encoder.shape(0).dim :]


@pytest.mark.parametrize("numbering", NUMBERS)
def test_a_timm_vit_is_numbered_as_its_own_intermediates(numbering: str) -> None:
    torch.manual_seed(0)
    encoder = timm_encoder(*TIMM[0])
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (theirs,) = encoder.network.forward_intermediates(
            pixels, indices=[NUMBERS["block"]], norm=False, output_fmt="NLC", intermediates_only=True
        )
    assert torch.equal(one_layer(encoder, numbering, NUMBERS[numbering]), theirs)


@pytest.mark.parametrize("numbering", NUMBERS)
def test_a_transformers_clip_is_numbered_as_its_own_hidden_states(numbering: str) -> None:
    torch.manual_seed(0)
    encoder = clip_encoder()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = encoder.network(pixels, output_hidden_states=True).hidden_states
    assert torch.equal(one_layer(encoder, numbering, NUMBERS[numbering]), states[NUMBERS["hf"]][:, 1:])


def test_the_papers_numbers_of_clip() -> None:
    """The fact sheet's table: 8, 16, 24 are hidden states 7, 15, 23 and timm's blocks 6, 14, 22; 24 is not the last."""
    for numbering, numbers in {"paper": (8, 16, 24), "hf": (7, 15, 23), "block": (6, 14, 22)}.items():
        assert [tap_of(number, numbering, 24, "k") for number in numbers] == [7, 15, 23]
    assert tap_of(1, "paper", 24, "k") == tap_of(0, "hf", 24, "k") == 0
    for numbering in NUMBERS:
        assert tap_of(-2, numbering, 24, "k") == 23
        assert tap_of(-1, numbering, 24, "k") == 24


def test_shares_of_the_depth_are_the_papers_layers_at_24_blocks_and_fit_others() -> None:
    published = {"1/6": 4, "1/3": 8, "1/2": 12, "2/3": 16, "5/6": 20}
    taps = layer_taps(list(published), "relative", 23, 24)
    assert taps == layer_taps(list(published.values()), "paper", 23, 24)
    assert layer_taps(list(published), "relative", 5, 6) == (0, 1, 2, 3, 4)
    assert layer_taps(["1/3", "2/3"], "relative", 3, 4) == (0, 2)
    assert layer_taps([0.5], "relative", 26, 27) == (13,)
    for option in ("sti", "sci"):
        assert build(option, depth=24).taps == build(f"{option}_official", depth=24).taps == (23, 7, 15)


def test_equal_groups_are_the_published_ones() -> None:
    assert (
        build("dci", depth=24).taps
        == build("dci_official", depth=24).taps
        == (23, tuple(range(12)), tuple(range(12, 24)))
    )
    assert group_taps(3, "paper", 23, 24) == [tuple(range(start, start + 8)) for start in (0, 8, 16)]
    assert group_taps(["1-8", "9-16", "17-24"], "paper", 23, 24) == group_taps(3, "paper", 23, 24)
    assert group_taps(3, "paper", 3, 4) == [(0, 1), (2,), (3,)]
    assert build("dci_official_siglip", depth=27).taps == (26, tuple(range(13)), tuple(range(13, 26)))
    assert group_taps([[0, 2], "3-4", 6], "hf", 5, 6) == [(0, 2), (3, 4), (6,)]


@pytest.mark.parametrize(
    ("option", "changes", "message"),
    [
        ("sci", {"numbering": "paper", "layers": [2, 26]}, "layers: 26 is beyond this encoder, which has 4 blocks"),
        ("sci", {"numbering": "paper", "layers": [0]}, r"layers: 0 is beyond.*numbering=paper: 1 to 5"),
        ("sci", {"numbering": "block", "layers": [4]}, r"layers: 4 is beyond.*numbering=block: 0 to 3"),
        ("sci", {"numbering": "hf", "layers": [-6]}, "layers: -6 is beyond"),
        ("sci", {"numbering": "hf", "layers": [1, -4]}, "1 and -4 are the same layer in this encoder of 4 blocks"),
        ("sci", {"layers": ["1/3", "1/4"]}, "1/3 and 1/4 are the same layer in this encoder of 4 blocks"),
        ("sci", {"numbering": "hf", "layers": [3]}, "3 is the final layer"),
        ("sti", {"layers": ["1/1"]}, "1/1 is the final layer"),
        ("sti", {"layers": []}, "not a list of layers"),
        ("sti", {"layers": 8}, "'8' is not a list of layers"),
        ("sti", {"layers": [8]}, "8 is not a fraction of the depth"),
        ("sti", {"layers": ["a third"]}, "'a third' is not a fraction"),
        ("sti", {"numbering": "hf", "layers": ["1/3"]}, "'1/3' must be an integer with numbering=hf"),
        ("sti", {"final": 3}, "final: 3 must count from the end with numbering=relative"),
        ("sti", {"final": -9}, "final: -9 is beyond"),
        ("sti", {"numbering": "papers"}, "did you mean 'paper'"),
        ("sti", {"stride": 26}, "stride: 26 must be from 1 to 25, the tokens of this encoder"),
        ("sti", {"stride": 0}, "stride: 0"),
        ("sti", {"tail": "pad"}, "tail: unknown 'pad'"),
        ("sti", {"pooling": "convs"}, "did you mean 'conv'"),
        ("sti", {"order": "last"}, "did you mean 'final_last'|choose from: final_first, final_last"),
        ("sci", {"layer_module": "conv"}, "did you mean 'conv2d'"),
        ("dci", {"groups": 5}, "groups: 5 must be from 1 to 4, the layers from the stem"),
        ("dci", {"groups": 0}, "groups: 0 must be from 1 to"),
        ("dci", {"groups": []}, "has no groups"),
        ("dci", {"groups": "1-4"}, "'1-4' has no groups"),
        ("dci", {"groups": ["1-2", []]}, "is empty"),
        ("dci", {"groups": ["1-2", "4-3"]}, "the group '4-3' is empty"),
        ("dci", {"groups": ["1-3", "3-4"]}, "'3-4' has a layer that is in a group already"),
        ("dci", {"groups": [[1, 1]]}, "must not overlap"),
        ("dci", {"groups": ["1-2", "3-26"]}, "groups: 6 is beyond this encoder, which has 4 blocks"),
        ("dci", {"groups": ["first"]}, "'first' is not a range of layers like 1-12"),
        ("dci", {"groups": ["1-2"], "numbering": "relative"}, "needs a number of equal groups"),
        ("dci", {"reduce": "max"}, "reduce: unknown 'max'"),
        ("dci", {"layer_module": "linear"}, "did you mean 'norm_linear'"),
        ("dci_learned", {"groups": 4}, "learned weights need groups of at least two layers"),
        ("final_repeated", {"times": 0}, "times: 0 must be at least 1"),
        ("final_repeated", {"layer": 9}, "layer: 9 is beyond"),
        ("last", {"layer": 5}, "layer: 5 is beyond"),
    ],
)
def test_mistakes_are_one_line(option: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(option, depth=4, **changes)
    assert str(caught.value).startswith("feature_layers.")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["sti", "sci", "dci"])
def test_an_encoder_without_intermediate_maps_is_refused(option: str) -> None:
    with pytest.raises(UserError, match="no intermediate maps"):
        build(option, vit_shapes(1))
