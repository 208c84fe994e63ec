"""Rows of a sweep that ask a frozen encoder about the same images run it once in all."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmexp.evaluation.result import read_predictions
from mmexp.evaluation.stage import EvaluateStage
from mmexp.files import LINEAGE_FILE, WEIGHTS_FILE
from mmexp.model.build import load_model, save_trained
from mmexp.model.encoder.block_encoder import BlockEncoder
from tests.model.feature_layers.nodes import node as layers_node
from tests.rules import metric_node
from tests.tiny import TEMPLATE, clip_node, runtime_node, save_checkpoint, tiny_spec


@pytest.fixture
def seen(monkeypatch) -> list[int]:
    """Numbers of views that went through an encoder."""
    counts: list[int] = []
    original = BlockEncoder.forward

    def forward(encoder: Any, pixels: torch.Tensor, *arguments: Any) -> Any:
        counts.append(len(pixels))
        return original(encoder, pixels, *arguments)

    monkeypatch.setattr(BlockEncoder, "forward", forward)
    return counts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three images, two questions each, one set of weights for all encoders, and an LLM."""
    folder = tmp_path_factory.mktemp("features")
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    lines = [
        {"question_id": f"{n}-{k}", "image": f"{n}.png", "question": text, "answer": "red", "family": "color"}
        for n in range(3)
        for k, text in enumerate(["is the square red ?", "what color is the square ?"])
    ]
    (folder / "qa.jsonl").write_text("\n".join(map(json.dumps, lines)))
    save_checkpoint(folder / "llm")
    return folder


def stage(folder, layers: str, init_from: str | None) -> EvaluateStage:
    spec = tiny_spec(encoders={"clip": clip_node(feature_layers=layers_node(layers))})
    spec["llm"]["checkpoint"] = str(folder / "llm")
    benchmark = {
        "_target_": "mmexp.evaluation.benchmark.Benchmark",
        "annotations": str(folder / "qa.jsonl"),
        "image_folder": str(folder),
        "metric": metric_node("lab_family", "exact"),
        "response_format": None,
        "max_new_tokens": 3,
        "limit": None,
    }
    return EvaluateStage(
        model=spec, init_from=init_from, benchmarks={"lab": benchmark}, aggregates={}, template=dict(TEMPLATE),
        use_images=True, seed=0, num_threads=None, precision="fp32",
    )  # fmt: skip


def answers(folder, work, layers: str, init_from: str | None = None, **runtime: Any) -> Any:
    work.mkdir()
    settings = runtime_node(work.parent, **runtime)
    stage(folder, layers, init_from).run(work, settings)
    return read_predictions(work)["lab"].predictions


def test_rows_with_other_layers_share_one_pass(folder, tmp_path, seen) -> None:
    taps = {"clip": [4, 3, [0, 1], [2, 3]]}
    plain = {layers: answers(folder, tmp_path / layers, layers) for layers in ("last", "dci", "penultimate")}
    assert sum(seen) > 3
    seen.clear()
    for layers, expected in plain.items():
        found = answers(folder, tmp_path / f"stored_{layers}", layers, feature_cache=True, feature_taps=taps)
        assert found == expected
    assert seen == [3]


def test_a_trained_encoder_is_run_and_nothing_of_it_stored(folder, tmp_path, seen) -> None:
    model = load_model(stage(folder, "last", None).model, None)
    names = [name for name, _ in model.named_trainables() if name.startswith("encoders.clip")][:1]
    trained = tmp_path / "trained"
    trained.mkdir()
    save_trained(model, trained, None, names)
    assert {path.name for path in trained.iterdir()} == {WEIGHTS_FILE, LINEAGE_FILE}
    answers(folder, tmp_path / "out", "last", str(trained), feature_cache=True)
    assert sum(seen) >= 3
    assert not list((tmp_path / "cache").rglob("*.npy"))
