"""The whole way on a toy world: two stages, shared by two trials, then a model that answers from real pixels."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from mmexp.stages.graph import build_graph
from mmexp.stages.run import TrialContext
from mmexp.stages.store import Store
from tests.fakes import run_graph
from tests.rules import metric_node
from tests.tiny import COSINE, TEMPLATE, data_node, runtime_node, save_checkpoint, save_dataset, tiny_spec

STEPS = {"align": 4, "finetune": 60}


@cache
def train_data(folder: Path) -> dict[str, Any]:
    """Written once: images that are written again are other images."""
    return save_dataset(folder / "train", count=48, seed=0)


def config(folder: Path, projector: str = "mlp", use_images: bool = True) -> dict[str, Any]:
    """A resolved config as Hydra would give it."""
    model = tiny_spec()
    model["llm"] |= {"checkpoint": str(folder / "llm"), "config": None}
    model["projector"]["depth"] = 2 if projector == "mlp" else 1
    model = model if use_images else {"llm": model["llm"]}
    datasets = train_data(folder)

    def stage(name: str, init_from: str | None, trainable: dict[str, float]) -> dict[str, Any]:
        return {
            "_target_": "mmexp.training.stage.TrainStage",
            "model": model,
            "init_from": init_from,
            "trainable": trainable,
            "data": {**data_node(datasets, packing="shared_prefix"), "use_images": use_images},
            "optimizer": {"_target_": "torch.optim.AdamW", "weight_decay": 0.0},
            "schedule": {
                "steps": STEPS[name],
                "warmup_ratio": 0.1,
                "decay": COSINE,
                "clip_norm": 1.0,
            },
            "precision": "fp32",
            "seed": 0,
            "num_threads": 1,
            "runtime": runtime_node(folder, feature_cache=True),
        }

    stages = {"finetune": stage("finetune", "stage:align" if use_images else None, {"projector": 5e-3, "llm": 2e-3})}
    if use_images:
        stages = {"align": stage("align", None, {"projector": 5e-3}), **stages}
    else:
        stages["finetune"]["trainable"] = {"llm": 2e-3}
    benchmark = {
        "_target_": "mmexp.evaluation.benchmark.Benchmark",
        "annotations": str(folder / "test.jsonl"),
        "image_folder": str(folder / "test"),
        "metric": metric_node("lab_family", "exact"),
        "response_format": None,
        "max_new_tokens": 3,
        "limit": None,
    }
    evaluation = {
        "_target_": "mmexp.evaluation.stage.EvaluateStage",
        "model": model,
        "init_from": "stage:finetune",
        "benchmarks": {"lab": benchmark},
        "aggregates": {"overall": {"metrics": {"color": 1, "red": 1}}},
        "template": dict(TEMPLATE),
        "use_images": use_images,
        "seed": 0,
        "num_threads": 1,
        "precision": "fp32",
        "runtime": runtime_node(folder),
    }
    return {"recipe": {"stages": stages}, "evaluation": evaluation, "allow_targets": []}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colors")
    save_checkpoint(folder / "llm")
    source = save_dataset(folder / "test", count=30, seed=5)["colors"]
    with (folder / "test.jsonl").open("w") as file:
        for record in json.loads(Path(source["annotations"]).read_text()):
            asked = record["conversations"]
            for number, family in enumerate(("color", "red")):
                question, answer = asked[2 * number]["value"], asked[2 * number + 1]["value"]
                line = {"question_id": f"{record['id']}-{family}", "image": record["image"], "family": family}
                file.write(json.dumps({**line, "question": question.replace("<image>\n", ""), "answer": answer}) + "\n")
    return folder


def run(folder: Path, **changes: Any) -> tuple[Path, list[str]]:
    """The trial's folder and the stages that had to be made."""
    store = Store(folder / "store", folder / "runs")
    resolved = config(folder, **changes)
    graph = build_graph(resolved)
    made = [name for name, spec in graph.stages.items() if store.find(spec.key) is None]
    context = TrialContext(key=graph.key, sweep=None, row="x", tags=[], config=resolved, stage_keys=graph.keys)
    return run_graph(graph, store, context), made


def result(folder: Path) -> dict[str, float]:
    return json.loads((folder / "result.json").read_text())["metrics"]


def test_it_reads_pixels_and_the_blind_cannot(world: Path) -> None:
    seeing, made = run(world)
    assert made == ["align", "finetune", "evaluate"]
    metrics = result(seeing)
    assert metrics["color"] >= 90
    assert metrics["red"] >= 90
    predictions = pyarrow.parquet.read_table(seeing / "predictions.parquet").to_pylist()
    assert len(predictions) == 60
    scores = [answer["score"] for answer in predictions if answer["family"] == "color"]
    assert np.isclose(100 * np.mean(scores), metrics["color"])
    assert {"align", "finetune"} == {
        json.loads(line)["stage"] for line in (seeing / "metrics.jsonl").read_text().splitlines()
    }
    blind, made = run(world, use_images=False)
    assert made == ["finetune", "evaluate"]
    assert result(blind)["color"] < 70
    assert json.loads((blind / "result.json").read_text())["costs"]["visual_tokens"] == 0


def test_the_same_config_is_not_run_again_and_another_projector_is(world: Path) -> None:
    first, _ = run(world)
    before = (first / "result.json").stat().st_mtime_ns
    again, made = run(world)
    assert (again, made) == (first, [])
    assert (first / "result.json").stat().st_mtime_ns == before
    other, made = run(world, projector="linear")
    assert made == ["align", "finetune", "evaluate"]
    assert other != first
