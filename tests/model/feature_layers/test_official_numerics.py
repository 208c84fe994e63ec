"""Dense Connector's released functions against ours, through the importer.

The golden file holds what the official functions and an official projector gave (float32, CPU); hidden states and
weights are drawn again here from the seeds it names.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mmexp.config import Composer
from mmexp.errors import UserError
from mmexp.instantiate import instantiate
from mmexp.interchange.dense_connector import overrides_of, projector_state_dict, read_projector
from mmexp.interfaces import FeatureMap, FeatureShape
from tests.model.feature_layers.nodes import node, select
from tests.tiny import mlp_node

GOLDEN = dict(np.load(Path(__file__).parent / "golden" / "dense_connector.npz"))
META = json.loads(GOLDEN.pop("meta").tobytes())
TOWERS = {"clip": "openai/clip-vit-large-patch14-336", "siglip": "google/siglip-so400m-patch14-384"}


def official_config(case: str) -> dict[str, Any]:
    encoder, kind = case.split("_")
    return {"mm_dense_connector_type": kind, "mm_vision_tower": TOWERS[encoder], "mm_projector_type": "mlp2x_gelu"}


def official_weights(case: str) -> dict[str, torch.Tensor]:
    random = np.random.RandomState(100 + META["cases"][case]["seed"])
    weights = {}
    for key, shape in META["cases"][case]["shapes"].items():
        value = random.standard_normal(shape) / np.sqrt(shape[-1])
        weights[f"model.mm_projector.{key}"] = torch.from_numpy(value.astype(np.float32))
    return weights


def hidden_states(case: str) -> list[FeatureMap]:
    facts = META["cases"][case]
    random = np.random.RandomState(facts["seed"])
    side, first = facts["side"], facts["class_tokens"]
    shape = (META["views"], side * side + first, META["dim"])
    states = [torch.from_numpy(random.standard_normal(shape).astype(np.float32)) for _ in range(facts["depth"] + 1)]
    return [FeatureMap(state[:, first:], (side, side)) for state in states]


def our_layers(case: str) -> Any:
    option = next(choice.split("=")[1] for choice in overrides_of(official_config(case)) if "layers" in choice)
    facts = META["cases"][case]
    shapes = [FeatureShape(facts["side"] ** 2, META["dim"], (facts["side"],) * 2)] * (facts["depth"] + 1)
    return instantiate(node(option), "feature_layers", depth=facts["depth"], shapes=shapes)


@pytest.mark.parametrize("case", META["cases"])
def test_connector_and_projector_give_the_official_numbers(case: str, tmp_path: Path) -> None:
    layers = our_layers(case)
    mine = layers(select(layers.taps, hidden_states(case)))
    assert torch.allclose(mine.tokens, torch.from_numpy(GOLDEN[case]), atol=1e-5)
    shape = mine.shape
    facts = {"in_dim": shape.dim, "in_tokens": shape.num_tokens, "in_grid": shape.grid, "out_dim": META["out_dim"]}
    projector = instantiate(mlp_node(), "projector", **facts)
    llm = {"model.layers.0.mlp.up_proj.weight": torch.zeros(2, 2)}
    save_file(official_weights(case) | llm, tmp_path / "model-00001-of-00001.safetensors")
    projector.load_state_dict(read_projector(tmp_path))
    with torch.no_grad():
        visual = projector(mine).tokens
    assert torch.allclose(visual, torch.from_numpy(GOLDEN[f"{case}_visual"]), atol=1e-5)


def test_import_is_a_round_trip() -> None:
    projector = instantiate(mlp_node(), "projector", in_dim=12, in_tokens=4, in_grid=None, out_dim=8)
    ours = projector.state_dict()
    theirs = {f"model.mm_projector.{key.removeprefix('layers.')}": value for key, value in ours.items()}
    back = projector_state_dict(theirs | {"model.vision_tower.x": torch.zeros(1)})
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[key], ours[key]) for key in ours)


def test_a_stage_one_file_is_read(tmp_path: Path) -> None:
    """``mm_projector.bin``, as the official pre-training writes it."""
    torch.save(official_weights("clip_dci"), tmp_path / "mm_projector.bin")
    assert read_projector(tmp_path).keys() == {
        f"layers.{number}.{kind}" for number in (0, 2) for kind in ("weight", "bias")
    }


def test_every_choice_of_a_released_config_composes() -> None:
    with Composer("paper").open() as composer:
        for case in META["cases"]:
            config = composer.compose(overrides_of(official_config(case))).resolved()
            assert list(config["model"]["encoders"]) == [case.split("_")[0]]
    deeper = overrides_of({**official_config("clip_dci"), "mm_projector_type": "mlp3x_gelu"})
    assert deeper[-1] == "projector.depth=3"
    plain = overrides_of({**official_config("clip_dci"), "mm_dense_connector_type": "none"})
    assert "feature_layers=penultimate" in plain


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mm_dense_connector_type": "dcl"}, "did you mean 'dci'"),
        ({"mm_vision_tower": "facebook/dinov2-large"}, "CLIP and SigLIP"),
        ({"mm_projector_type": "linear"}, "mm_projector_type is 'linear'"),
        ({"mm_hidden_size": 1024}, "mm_hidden_size is 1024; dci of clip has 3072"),
    ],
)
def test_foreign_configs_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        overrides_of({**official_config("clip_dci"), **change})


def test_a_config_without_connector_type_is_no_silent_default() -> None:
    with pytest.raises(UserError, match="mm_dense_connector_type is 'not given'"):
        overrides_of({"mm_vision_tower": TOWERS["clip"], "mm_projector_type": "mlp2x_gelu"})


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no \.safetensors or \.bin"):
        read_projector(tmp_path)
    save_file({"model.layers.0.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="none of its tensors"):
        read_projector(tmp_path)
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"broken\.safetensors: cannot be read"):
        read_projector(tmp_path)
    with pytest.raises(UserError, match="belongs to no MLP"):
        projector_state_dict({"model.mm_projector.pre_norm.weight": torch.zeros(1)})
    with pytest.raises(UserError, match="none of its 1 tensors"):
        projector_state_dict({"model.norm.weight": torch.zeros(1)})
