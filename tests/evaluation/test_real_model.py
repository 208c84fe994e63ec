"""The stage with a real (tiny, random) model: question file in, result out."""

import json

import pytest

from mmexp.evaluation.result import read_predictions, read_result
from mmexp.evaluation.stage import EvaluateStage
from tests.rules import metric_node
from tests.tiny import NUM_VISUAL, TEMPLATE, runtime_node, save_checkpoint, save_dataset, tiny_spec


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_dataset(folder / "data", 3)
    questions = [
        {"question_id": f"{image}-{n}", "image": f"{image}.png", "question": text, "answer": "red", "family": "color"}
        for image in range(3)
        for n, text in enumerate(["what color is the square ?", "is the square red ?"])
    ]
    (folder / "qa.jsonl").write_text("\n".join(map(json.dumps, questions)))
    spec = tiny_spec()
    spec["llm"]["checkpoint"] = save_checkpoint(folder / "llm")
    return {
        "model": spec,
        "init_from": None,
        "benchmarks": {
            "lab": {
                "_target_": "mmexp.evaluation.benchmark.Benchmark",
                "annotations": str(folder / "qa.jsonl"),
                "image_folder": str(folder / "data"),
                "metric": metric_node("lab_family", "exact"),
                "response_format": None,
                "max_new_tokens": 3,
                "limit": None,
            }
        },
        "aggregates": {"overall": {"metrics": {"color": 1}}},
        "template": dict(TEMPLATE),
        "use_images": True,
        "seed": 0,
        "num_threads": None,
        "precision": "fp32",
    }


def evaluate(node, folder, **runtime):
    folder.mkdir()
    EvaluateStage(**node).run(folder, runtime_node(folder, **runtime))
    return read_result(folder), read_predictions(folder)["lab"]


def test_batches_do_not_change_answers(node, tmp_path):
    result, one = evaluate(node, tmp_path / "one", eval_batch_size=1)
    _, many = evaluate(node, tmp_path / "many", eval_batch_size=64)
    assert one.predictions == many.predictions
    assert any(one.predictions)
    assert one.question_ids == [f"{image}-{n}" for image in range(3) for n in range(2)]
    assert result["costs"]["visual_tokens"] == NUM_VISUAL
    assert set(result["costs"]["parameters_by_part"]) == {"encoders", "projector", "llm"}
    assert set(result["metrics"]) == {"lab", "color", "overall"}


def test_without_images_answers_depend_on_the_question_only(node, tmp_path):
    result, blind = evaluate(node | {"use_images": False}, tmp_path / "blind")
    assert len(set(blind.predictions[0::2])) == len(set(blind.predictions[1::2])) == 1
    assert result["costs"]["visual_tokens"] == 0
    assert set(result["costs"]["parameters_by_part"]) == {"llm"}


def test_bf16_runs(node, tmp_path):
    _, answers = evaluate(node | {"precision": "bf16"}, tmp_path / "bf16")
    assert len(answers) == 6
