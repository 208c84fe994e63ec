"""Validation in the middle of training: it is written down, and the weights are those of a training without it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mmexp.errors import UserError
from tests.rules import metric_node
from tests.tiny import TEMPLATE
from tests.training.test_stage import equal, reference, spec, train, world

__all__ = ["reference", "world"]


def validation(world: Path, every: int) -> dict[str, Any]:
    question = {"question_id": "a", "image": "0.png", "question": "what color is the square ?", "answer": "red"}
    lines = [question | {"question_id": str(n), "image": f"{n}.png", "family": "color"} for n in range(3)]
    (world / "qa.jsonl").write_text("\n".join(map(json.dumps, lines)))
    benchmark = {
        "_target_": "mmexp.evaluation.benchmark.Benchmark",
        "annotations": str(world / "qa.jsonl"),
        "image_folder": str(world / "data"),
        "metric": metric_node("lab_family", "exact"),
        "response_format": None,
        "max_new_tokens": 3,
        "limit": None,
    }
    scorer = {
        "_target_": "mmexp.evaluation.validation.Validation",
        "benchmarks": {"val": benchmark},
        "aggregates": {"overall": {"metrics": {"color": 1}}},
        "template": dict(TEMPLATE),
        "use_images": True,
        "precision": "fp32",
    }
    return {"validation": {"every_steps": every, "scorer": scorer}}


def test_validation_is_written_and_changes_no_weight(reference, world: Path, tmp_path: Path) -> None:
    _, weights = reference
    torch.manual_seed(1)
    validated = train(tmp_path, world, validation(world, 2))
    assert equal(weights, validated)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    found = [record for record in records if "loss" not in record]
    assert [record["step"] for record in found] == [2, 4]
    assert all({"val/color", "val/overall"} <= record.keys() for record in found)


def test_with_dropout_too(world: Path, tmp_path: Path) -> None:
    """Training draws random numbers: validation in between draws none of them and does not leave dropout off."""
    node = spec(world)
    node["llm"] = {**node["llm"], "lora": {"r": 2, "alpha": 4, "dropout": 0.5, "targets": "all-linear"}}
    changes = {"model": node, "trainable": {"projector": 1e-2, "llm.*lora_": 1e-2}}
    plain = train(tmp_path / "plain", world, **changes)
    assert equal(plain, train(tmp_path / "validated", world, validation(world, 1), **changes))


def test_a_kill_between_validations_repeats_none(world: Path, tmp_path: Path) -> None:
    def kill(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(BaseException):  # noqa: B017 - what a kill looks like depends on Lightning
        train(tmp_path, world, {**validation(world, 1), "progress": kill})
    train(tmp_path, world, validation(world, 1))
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "loss" not in record] == [1, 2, 3, 4, 5]


def test_sharded_models_are_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trainer.runtime.strategy: fsdp shards the model"):
        train(tmp_path, world, {**validation(world, 1), "strategy": "fsdp"})
