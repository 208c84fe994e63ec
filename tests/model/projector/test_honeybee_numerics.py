"""Honeybee's released modules against ours: same weights through the importer, same numbers.

The golden file holds what the official modules gave (transformers 4.38.1, timm 0.9.8, float32, CPU) and the names and
shapes of their weights; weights and inputs are drawn again here from the seeds it names.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmexp.errors import UserError
from mmexp.instantiate import instantiate
from mmexp.interchange.honeybee import projector_state_dict, read_checkpoint
from mmexp.interfaces import FeatureMap
from tests.model.projector.nodes import node

GOLDEN = dict(np.load(Path(__file__).parent / "golden" / "honeybee.npz"))
META = json.loads(GOLDEN.pop("meta").tobytes())
FACTS = {"in_dim": META["in_dim"], "in_tokens": META["in_tokens"], "in_grid": (4, 4), "out_dim": META["out_dim"]}


def official_weights(case: str) -> dict[str, torch.Tensor]:
    """Drawn in the order of the sorted keys: norms around 1, points inside the map, matrices by their fan-in."""
    random = np.random.RandomState(META["cases"][case]["seed"])
    weights = {}
    for key, shape in sorted(META["cases"][case]["shapes"].items()):
        value = random.standard_normal(shape)
        if key == "reference_points":
            value = random.uniform(0.05, 0.95, shape)
        elif key.endswith("weight"):
            value = 1 + 0.3 * value if len(shape) == 1 else value / np.sqrt(np.prod(shape[1:]))
        else:
            value = 0.3 * value
        weights[key] = torch.from_numpy(value.astype(np.float32))
    return weights


def official_input(case: str) -> torch.Tensor:
    random = np.random.RandomState(1000 + META["cases"][case]["seed"])
    shape = (META["views"], META["in_tokens"], META["in_dim"])
    return torch.from_numpy(random.standard_normal(shape).astype(np.float32))


def our_node(case: str) -> dict[str, Any]:
    """Our option with the settings of an official config."""
    theirs = META["cases"][case]["config"]
    frame = {key: theirs.get(key, False) for key in ("prenorm", "pos_emb")} | {
        "num_eos_tokens": theirs["num_eos_tokens"]
    }
    match theirs["projector_type"]:
        case "mlp" if theirs["depth"] == 1:
            return node("linear_normal", **frame)
        case "mlp":
            return node("mlp2x_silu", depth=theirs["depth"], **frame)
        case "resampler":
            own = {"depth": theirs["num_hidden_layers"], "num_heads": theirs["num_attention_heads"]}
            ratio = theirs["intermediate_size"] / theirs["hidden_size"]
            own |= {"hidden_dim": theirs["hidden_size"], "ffn_ratio": ratio, "num_tokens": theirs["num_query_tokens"]}
            return node("resampler", **own, **frame)
        case "c-abs":
            own = {key: theirs[key] for key in ("depth", "mlp_depth")} | {"num_tokens": theirs["num_query_tokens"]}
            own |= {"hidden_dim": theirs["hidden_size"]} if theirs["depth"] else {"block": "none"}
            return node("c_abstractor", **own, **frame)
        case _:
            own = {
                "hidden_dim": theirs["d_model"],
                "depth": theirs["decoder_layers"],
                "ffn_ratio": 32 / theirs["d_model"],
            }
            own |= {"num_tokens": theirs["num_queries"], "pooled_v_target": theirs["pooled_v_target"]}
            return node("d_abstractor", **own, **frame)


def our_projector(case: str) -> Any:
    return instantiate(our_node(case), "projector", **FACTS).eval()


@pytest.mark.parametrize("case", META["cases"])
def test_same_numbers_as_the_official_module(case: str) -> None:
    ours = our_projector(case)
    ours.load_state_dict(projector_state_dict(official_weights(case)))
    with torch.no_grad():
        out = ours(FeatureMap(official_input(case), (4, 4)))
    theirs = torch.from_numpy(GOLDEN[case])
    assert out.tokens.shape == theirs.shape == (META["views"], ours.num_tokens, META["out_dim"])
    torch.testing.assert_close(out.tokens, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", META["cases"])
def test_round_trip_of_weights_with_and_without_prefix(case: str) -> None:
    official = official_weights(case)
    whole = {f"abstractor.{key}": value for key, value in official.items()} | {"language_model.a": torch.ones(1)}
    bare, prefixed = projector_state_dict(official), projector_state_dict(whole)
    assert bare.keys() == prefixed.keys()
    module = our_projector(case)
    module.load_state_dict(prefixed)
    back = module.state_dict()
    # each official tensor is somewhere in ours, unchanged, once
    assert len(back) == len(official)
    ours_by_theirs = dict(zip(official, bare, strict=True))
    assert all(torch.equal(back[ours_by_theirs[key]], value) for key, value in official.items())


def test_class_token_of_old_position_embeddings_is_dropped() -> None:
    official = official_weights("c_abs")
    old = official | {"pos_emb": torch.cat([torch.full((1, 1, META["in_dim"]), 9.0), official["pos_emb"]], dim=1)}
    assert torch.equal(projector_state_dict(old)["pos_emb"], official["pos_emb"])


def test_reads_the_shards_of_a_whole_checkpoint(tmp_path: Path) -> None:
    official = official_weights("resampler")
    keys = list(official)
    for number, part in enumerate((keys[:20], keys[20:])):
        shard = {f"abstractor.{key}": official[key] for key in part} | {f"language_model.{number}": torch.ones(2)}
        torch.save(shard, tmp_path / f"pytorch_model-{number}.bin")
    torch.save({"args": 1}, tmp_path / "training_args.bin")
    state = projector_state_dict(read_checkpoint(tmp_path))
    our_projector("resampler").load_state_dict(state)
    assert len(state) == len(official)


class Sentinel:
    """Something that a pickle would have to execute code for."""


def test_wrong_checkpoints_are_one_line(tmp_path: Path) -> None:
    official = official_weights("d_abs")
    with pytest.raises(UserError, match="several feature levels"):
        projector_state_dict(official | {"level_emb": torch.ones(1)})
    with pytest.raises(UserError, match=r"'layers\.0\.gate' belongs to no d-abs"):
        projector_state_dict(official | {"layers.0.gate": torch.ones(1)})
    with pytest.raises(UserError, match="no projector among its 1 keys"):
        projector_state_dict({"model.embed_tokens.weight": torch.ones(1)})
    with pytest.raises(UserError, match=r"no \.safetensors or \.bin"):
        read_checkpoint(tmp_path)
    torch.save(Sentinel(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be read as weights") as caught:
        read_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)
