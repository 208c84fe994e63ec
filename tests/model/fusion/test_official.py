"""The released modules against ours: same weights, same numbers (float32, CPU).

The golden file holds what the official code gave (LLaVA-HR, Mini-Gemini and Eagle at their last commits) and the names
and shapes of its weights; weights and inputs are drawn again here from the seeds it names.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmexp.interfaces import FeatureMap, FeatureShape
from mmexp.model.encoder.sam_encoder import drawn_neck
from mmexp.model.fusion.channel_concat import ChannelConcat
from mmexp.model.fusion.llava_hr import Adapter, LlavaHr
from mmexp.model.fusion.mini_gemini import MiniGemini
from mmexp.model.maps import to_tokens

GOLDEN = dict(np.load(Path(__file__).parent / "golden" / "official.npz"))
CASES = json.loads(GOLDEN.pop("meta").tobytes())["cases"]
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def official_weights(case: str) -> dict[str, torch.Tensor]:
    """Drawn in the order of the sorted keys: norms around 1, matrices by their fan-in."""
    random = np.random.RandomState(CASES[case]["seed"])
    weights = {}
    for key, shape in sorted(CASES[case]["shapes"].items()):
        value = random.standard_normal(shape)
        if key.endswith("weight"):
            value = 1 + 0.3 * value if len(shape) == 1 else value / np.sqrt(np.prod(shape[1:]))
        else:
            value = 0.3 * value
        weights[key] = torch.from_numpy(value.astype(np.float32))
    return weights


def official_inputs(case: str) -> list[torch.Tensor]:
    random = np.random.RandomState(1000 + CASES[case]["seed"])
    return [torch.from_numpy(random.standard_normal(shape).astype(np.float32)) for shape in CASES[case]["inputs"]]


def load(module: torch.nn.Module, case: str, names: dict[str, str]) -> None:
    """Official name (beginning) -> ours; 1 x 1 convolutions are linear layers here."""
    own = module.state_dict()
    for key, value in official_weights(case).items():
        old = next(name for name in names if key.startswith(name))
        new = names[old] + key.removeprefix(old)
        own[new] = value.reshape(own[new].shape)
    module.load_state_dict(own)


def feature_map(pixels: torch.Tensor) -> FeatureMap:
    return FeatureMap(to_tokens(pixels), (pixels.shape[2], pixels.shape[3]))


def check(ours: torch.Tensor, case: str) -> None:
    expected = torch.from_numpy(GOLDEN[case])
    assert expected.abs().mean() > 0.1
    assert torch.allclose(ours, expected, **TOLERANCE)


@pytest.mark.parametrize("side", [2, 4, 8])
def test_llava_hr_adapter(side: int) -> None:
    case = f"llava_hr_adapter_{side}"
    adapter = Adapter(FeatureShape(16, 8, (4, 4)), FeatureShape(side * side, 12, (side, side)))
    names = {
        "slow_conv": "high_in",
        "slow_proj": "high_out",
        "fast_conv": "low_conv",
        "fast_proj": "low_out",
        "gate": "gate",
    }
    load(adapter, case, names)
    fast, slow = official_inputs(case)
    with torch.no_grad():
        check(adapter(fast, feature_map(slow)), case)


@pytest.mark.parametrize("side", [2, 4, 8])
def test_llava_hr_final_sum(side: int) -> None:
    case = f"llava_hr_align_{side}"
    shapes = {"low": FeatureShape(16, 8, (4, 4)), "high": FeatureShape(side * side, 12, (side, side))}
    fusion = LlavaHr(num_adapters=0, shapes=shapes, tap_shapes={}, deepest={"low": 4, "high": 4})
    load(fusion, case, {"fast_proj": "low_proj", "slow_proj": "high_proj.high"})
    fast, slow = official_inputs(case)
    with torch.no_grad():
        (stream,) = fusion({"low": [FeatureMap(fast, (4, 4))], "high": [feature_map(slow)]})
    check(stream.tokens, case)


def test_mini_gemini_with_all_stages() -> None:
    tokens, *stages = official_inputs("mini_gemini")
    stage_shapes = [feature_map(stage).shape for stage in stages]
    first = FeatureShape(16, 10, (4, 4))
    fusion = MiniGemini(
        multi_stage=True,
        window=None,
        shapes={"low": first, "high": stage_shapes[-1]},
        tap_shapes={"low": [first] * 3, "high": [stage_shapes[0], *stage_shapes]},
    )
    names = {"query": "query", "aux": "key", "val": "value"}
    load(fusion, "mini_gemini", {f"vlm_uni_{old}_projector": f"miners.high.{new}" for old, new in names.items()})
    high = [feature_map(stage) for stage in (stages[-1], *stages)]
    with torch.no_grad():
        (stream,) = fusion({"low": [FeatureMap(tokens, (4, 4))], "high": high})
    check(stream.tokens, "mini_gemini")


def test_channel_concat() -> None:
    same, odd, finer = official_inputs("channel_concat")
    maps = {"a": FeatureMap(same, (4, 4)), "b": FeatureMap(odd, (5, 5)), "c": feature_map(finer)}
    fusion = ChannelConcat(
        grid=[4, 4], route="bilinear", shapes={name: part.shape for name, part in maps.items()}, tap_shapes={}
    )
    (stream,) = fusion({name: [part] for name, part in maps.items()})
    assert fusion.streams == [stream.shape]
    check(stream.tokens, "channel_concat")


def test_eagles_sam_neck() -> None:
    (hidden,) = official_inputs("sam_neck")
    neck = drawn_neck(16, 6)
    load(neck, "sam_neck", {"conv1": "0", "layer_norm1": "1"})
    with torch.no_grad():
        check(torch.nn.functional.pixel_unshuffle(neck(hidden.permute(0, 3, 1, 2)), 2), "sam_neck")
