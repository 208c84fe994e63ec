"""Training with several layers: the cache of groups changes nothing, learned parts of the selection are trained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mmexp.model.mllm import Mllm
from tests.model.feature_layers.nodes import NAMES, node
from tests.tiny import clip_node, convnext_node, image_batch, save_checkpoint, save_dataset, tiny_spec
from tests.training.test_stage import equal, train

TRAINABLE = {"projector|feature_layers": 1e-2, "llm": 1e-3}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    save_checkpoint(folder / "llm")
    save_dataset(folder / "data", count=12)
    torch.manual_seed(0)
    network = Mllm(tiny_spec(), load=False).vision.encoders["clip"].network
    save_file(network.state_dict(), folder / "clip.safetensors")
    return folder


def spec(world: Path, option: str) -> dict[str, Any]:
    encoder = clip_node(feature_layers=node(option), weights=str(world / "clip.safetensors"))
    model = tiny_spec(encoders={"clip": encoder})
    model["llm"] |= {"checkpoint": str(world / "llm"), "config": None}
    return model


@pytest.mark.parametrize("option", ["dci", "sti", "dci_learned"])
def test_cached_features_train_the_same_model(option: str, world: Path, tmp_path: Path) -> None:
    runs = []
    for cached in (False, True):
        runtime = {"feature_cache": cached, "cache_dir": str(tmp_path / "cache")}
        runs.append(train(tmp_path / str(cached), world, runtime, model=spec(world, option), trainable=TRAINABLE))
    assert equal(*runs)
    stored = {path.name.split(".")[1] for path in (tmp_path / "cache").rglob("*.npy")} - {"keys"}
    assert stored == {"dci": {"3", "0+1", "2+3"}, "sti": {"3", "0", "2"}, "dci_learned": set("0123")}[option]


@pytest.mark.parametrize(
    "option", [name for name in NAMES if "_learned" in name or "_conv" in name or "_linear" in name]
)
def test_learned_parts_are_trained_and_saved(option: str, world: Path, tmp_path: Path) -> None:
    weights = train(tmp_path, world, model=spec(world, option), trainable=TRAINABLE)
    own = {name: value for name, value in weights.items() if name.startswith("feature_layers.clip.")}
    assert own
    if "learned" in option:
        assert all(np.ptp(value.numpy()) > 0 for value in own.values()), "all weights of a group began equal"


def test_two_encoders_choose_their_own_layers() -> None:
    """DCI for the ViT; a ConvNeXt, whose stages differ in width, has SCI."""
    encoders = {"clip": clip_node(feature_layers=node("dci")), "convnext": convnext_node(feature_layers=node("sci"))}
    fusion = {"_target_": "tests.model.test_seams.TwoStreams"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmexp.instantiate._allowed", {"tests"})
        model = Mllm(tiny_spec(encoders=encoders, fusion=fusion), load=False)
    assert [part.dim for part in model.vision.fusion.streams] == [3 * 64, 24 + 8 + 16]
    images = image_batch(2, {"clip": 32, "convnext": 128})
    assert model.visual_tokens(images).shape == (2 * (16 + 64), 96)
