"""A training stage: what it trains, that a kill changes nothing, that only the data decides the loss."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mmexp.errors import UserError
from mmexp.model.build import load_model, load_trained
from mmexp.training.callbacks import CHECKPOINT
from mmexp.training.stage import TrainStage
from tests.tiny import COSINE, data_node, runtime_node, save_checkpoint, save_dataset, tiny_spec

STEPS = 5


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    save_checkpoint(folder / "llm")
    save_dataset(folder / "data", count=12)
    return folder


def spec(world: Path, **changes: Any) -> dict[str, Any]:
    node = tiny_spec(**changes)
    node["llm"] |= {"checkpoint": str(world / "llm"), "config": None}
    return node


def stage(world: Path, **changes: Any) -> TrainStage:
    settings = {
        "model": spec(world),
        "init_from": None,
        "trainable": {"projector": 1e-2, "llm": 1e-3},
        "data": data_node(save_dataset(world / "data", count=12)),
        "optimizer": {"_target_": "torch.optim.AdamW", "weight_decay": 0.0},
        "schedule": {
            "steps": STEPS,
            "warmup_ratio": 0.2,
            "decay": COSINE,
            "clip_norm": 1.0,
        },
        "precision": "fp32",
        "seed": 0,
        "num_threads": 1,
    }
    return TrainStage(**{**settings, **changes})


def train(folder: Path, world: Path, runtime: dict[str, Any] | None = None, **changes: Any) -> dict[str, torch.Tensor]:
    folder.mkdir(parents=True, exist_ok=True)
    stage(world, **changes).run(folder, {**runtime_node(world), **(runtime or {})})
    return load_file(folder / "weights.safetensors")


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], atol: float) -> bool:
    assert first.keys() == second.keys()
    return all(torch.allclose(first[name], second[name], atol=atol) for name in first)


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def reference(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("reference")
    return folder, train(folder, world)


def test_it_learns_and_writes_what_it_saw(reference, world: Path) -> None:
    folder, weights = reference
    curve = losses(folder)
    assert len(curve) == STEPS
    assert curve[-1] < curve[0]
    assert json.loads((folder / "data.json").read_text()) == {"samples": {"colors": STEPS * 8}, "skipped": 0}
    assert all(name.startswith(("projector", "llm")) for name in weights)
    assert not (folder / CHECKPOINT).exists()


def test_frozen_parts_stay_and_trained_parts_move(reference, world: Path, tmp_path: Path) -> None:
    _, weights = reference
    before = dict(load_model(spec(world), None).named_trainables())
    assert any(not torch.equal(before[name], value) for name, value in weights.items() if name.startswith("llm"))
    only = train(tmp_path / "projector", world, trainable={"projector": 1e-2})
    assert set(only) == {name for name in weights if name.startswith("projector")}
    unfrozen = train(tmp_path / "encoder", world, trainable={"encoders.clip": 1e-3, "projector": 1e-2})
    assert any(name.startswith("encoders.clip") for name in unfrozen)


def test_accumulation_is_normalised_over_the_window(reference, world: Path, tmp_path: Path) -> None:
    """8 x 1 = 1 x 8 = 3 + 3 + 2, though micro-batches have different numbers of answer tokens."""
    folder, weights = reference
    for size in (1, 3):
        accumulated = train(tmp_path / str(size), world, {"micro_batch_size": size})
        assert close(weights, accumulated, atol=2e-5)
        assert losses(tmp_path / str(size)) == pytest.approx(losses(folder), abs=1e-5)


@pytest.mark.parametrize("packing", ["sequence", "shared_prefix"])
def test_packing_does_not_change_training(reference, world: Path, tmp_path: Path, packing: str) -> None:
    folder, weights = reference
    data = data_node(save_dataset(world / "data", count=12), packing=packing)
    packed = train(tmp_path, world, data=data)
    assert losses(tmp_path) == pytest.approx(losses(folder), abs=1e-5)
    assert close(weights, packed, atol=2e-5)


def test_a_killed_stage_goes_on_to_the_same_weights(reference, world: Path, tmp_path: Path) -> None:
    _, weights = reference

    def kill(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(BaseException):  # noqa: B017 - what a kill looks like depends on Lightning
        train(tmp_path, world, {"progress": kill})
    assert (tmp_path / CHECKPOINT).is_file()
    assert not (tmp_path / "weights.safetensors").exists()
    steps: list[int] = []
    resumed = train(tmp_path, world, {"progress": lambda done, total: steps.append(done)})
    assert steps == [3, 4, 5]
    assert equal(weights, resumed)
    assert len(losses(tmp_path)) == STEPS


def test_cached_features_train_the_same_weights(reference, world: Path, tmp_path: Path) -> None:
    _, weights = reference
    cached = train(tmp_path / "first", world, {"feature_cache": True})
    assert close(weights, cached, atol=2e-5)
    files = {path: path.stat().st_mtime_ns for path in (world / "cache").rglob("*.npy")}
    assert files
    again = train(tmp_path / "second", world, {"feature_cache": True})
    assert equal(cached, again)
    assert files == {path: path.stat().st_mtime_ns for path in (world / "cache").rglob("*.npy")}


def test_a_stage_goes_on_from_another(reference, world: Path, tmp_path: Path) -> None:
    folder, weights = reference
    continued = train(tmp_path / "b", world, init_from=str(folder), trainable={"projector": 1e-2})
    model = load_model(spec(world), None)
    (tmp_path / folder.name).symlink_to(folder)  # in the store, stages lie side by side
    load_trained(model, tmp_path / "b")
    state = dict(model.named_trainables())
    name = next(name for name in weights if name.startswith("llm"))
    assert torch.equal(state[name], weights[name])
    assert all(torch.equal(state[name], value) for name, value in continued.items())


def test_the_seed_decides_initialisation_and_order(reference, world: Path, tmp_path: Path) -> None:
    _, weights = reference
    assert equal(weights, train(tmp_path / "same", world))
    assert not close(weights, train(tmp_path / "other", world, seed=1), atol=1e-4)


def test_bf16_trains(world: Path, tmp_path: Path) -> None:
    train(tmp_path, world, precision="bf16")
    curve = losses(tmp_path)
    assert curve[-1] < curve[0]


def test_mistakes_are_named(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'bf16'"):
        stage(world, precision="bf61")
    with pytest.raises(UserError, match="'projektor' matches no parameter"):
        train(tmp_path, world, trainable={"projektor": 1e-3})
    schedule = {
        "steps": 2,
        "warmup_ratio": 0.0,
        "decay": {"_target_": "mmexp.training.schedule.Cosin"},
        "clip_norm": 1.0,
    }
    with pytest.raises(UserError, match="did you mean 'Cosine'"):
        train(tmp_path, world, schedule=schedule)
