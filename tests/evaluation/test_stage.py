"""The evaluation stage around a model and a generation that answer from a table."""

import json
import sys
import types

import pytest
import torch
from PIL import Image

from mmexp.errors import UserError
from mmexp.evaluation import stage as stage_module
from mmexp.evaluation.result import read_predictions, read_result, write_result
from mmexp.evaluation.stage import EvaluateStage, step_ms
from mmexp.stages.further import evaluate_run
from tests.rules import metric_node


class FakeModel(torch.nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.spec = spec
        self.llm = torch.nn.Linear(3, 3)
        self.projector = torch.nn.Linear(2, 2, bias=False)

    def named_trainables(self):
        return list(self.named_parameters())


@pytest.fixture
def seen(monkeypatch):
    """Stands for the parts of the model side; records how generation was called."""
    calls = []

    def generate_answers(
        model, template, questions, *, use_images, batch_size, max_new_tokens, progress, aggregation, features
    ):
        calls.append({"use_images": use_images, "batch_size": batch_size, "max_new_tokens": max_new_tokens})
        assert not torch.is_grad_enabled()
        assert not model.training
        progress(len(questions))
        return [model.spec["answers"][question.turn.question] for question in questions]

    fakes = {
        "mmexp.model.build": {
            "load_model": lambda spec, init_from: FakeModel(spec),
            "lineage": lambda folder: [folder],
            "token_counter": lambda model: lambda size: size[0] // 4,
        },
        "mmexp.evaluation.generation": {"generate_answers": generate_answers},
    }
    for name, members in fakes.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    return calls


@pytest.fixture
def node(tmp_path):
    """The node `evaluation` of a config."""
    for name, width in (("a", 8), ("b", 24)):
        Image.new("RGB", (width, 8)).save(tmp_path / f"{name}.png")
    lines = [
        {"question_id": 1, "image": "a.png", "question": "one?", "answer": "1", "family": "count"},
        {"question_id": 2, "image": "b.png", "question": "red?", "answer": "yes", "family": "color"},
    ]
    (tmp_path / "qa.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return {
        "model": {"answers": {"one?": "1", "red?": "no"}},
        "init_from": None,
        "benchmarks": {
            "lab": {
                "_target_": "mmexp.evaluation.benchmark.Benchmark",
                "annotations": str(tmp_path / "qa.jsonl"),
                "image_folder": str(tmp_path),
                "metric": metric_node("lab_family", "exact"),
                "response_format": "word",
                "max_new_tokens": 4,
                "limit": None,
            }
        },
        "aggregates": {"overall": {"metrics": {"count": 1, "color": 0.5}}, "other": {"metrics": {"pope": 1}}},
        "template": {},
        "use_images": True,
        "seed": 0,
        "num_threads": None,
        "precision": "fp32",
    }


def test_every_rotation_of_a_question_is_in_the_predictions(seen, node, tmp_path):
    """Also through `mmexp eval`: a finished run on a further benchmark."""
    question = {"question_id": "q", "image": "a.png", "question": "one?", "choices": ["x", "y"], "answer": "B"}
    (tmp_path / "choices.jsonl").write_text(json.dumps(question | {"family": "choice"}))
    circular = node["benchmarks"]["lab"] | {
        "_target_": "mmexp.evaluation.circular.CircularBenchmark",
        "annotations": str(tmp_path / "choices.jsonl"),
        "metric": metric_node("mmbench", "vlmevalkit"),
        "families": ["choice"],
    }
    node["model"]["answers"] |= {"one?\nA. x\nB. y": "B", "one?\nA. y\nB. x": "B"}
    (tmp_path / "config.yaml").write_text(json.dumps({"evaluation": node}))
    write_result(tmp_path, {"stage_keys": {}})
    result = evaluate_run(tmp_path, {"circular": circular}, {}.get, {})
    assert result["metrics"] == {"circular": 0, "circular_choice": 0}
    found = read_predictions(tmp_path / "evaluations" / "circular")["circular"]
    assert list(found.question_ids) == ["q", "q#1"]
    assert (list(found.answers), list(found.scores)) == (["B", "A"], [1, 0])


def test_result(seen, node, tmp_path):
    progress = []
    runtime = {
        "eval_batch_size": 3,
        "trial_key": "abc",
        "stage_keys": {"align": "k", "world": "w"},
        "stage_seconds": {"align": 100.0, "world": 900.0},
        "config_choices": {"projector": "linear"},
        "progress": lambda done, total: progress.append((done, total)),
    }
    EvaluateStage(**node | {"init_from": "store/k"}).run(tmp_path, runtime)
    result = read_result(tmp_path)
    assert result["metrics"] == {"lab": 50, "count": 100, "color": 0, "overall": 50}
    assert result["missing_aggregates"] == {"other": ["pope"]}
    assert (result["trial_key"], result["stage_keys"]) == ("abc", {"align": "k", "world": "w"})
    assert result["config_choices"] == {"projector": "linear"}
    assert result["scoring"]["benchmarks"] == {"lab": {"metric": metric_node("lab_family", "exact")}}
    assert result["scoring"]["aggregates"]["overall"] == {"metrics": {"count": 1, "color": 0.5}}
    costs = result["costs"]
    assert (costs["parameters"], costs["parameters_by_part"]) == (16, {"llm": 12, "projector": 4})
    assert costs["visual_tokens"] == (2 + 6) / 2
    assert costs["projector_parameters"] == 4
    assert (costs["trained_stages"], costs["training_seconds"]) == (["align"], 100)
    assert costs["seconds"] == 100 + costs["evaluation_seconds"]
    assert torch.__version__.startswith(result["versions"]["torch"])
    assert read_predictions(tmp_path)["lab"].predictions == ["1", "no"]
    assert seen == [{"use_images": True, "batch_size": 3, "max_new_tokens": 4}]
    assert progress == [(2, 2)]


def test_blind_costs_nothing_visual(seen, node, tmp_path):
    EvaluateStage(**node | {"use_images": False}).run(tmp_path, {})
    costs = read_result(tmp_path)["costs"]
    assert (costs["visual_tokens"], costs["parameters_by_part"]) == (0, {"llm": 12})
    assert seen[0]["use_images"] is False


def test_bad_question_leaves_nothing_behind(seen, node, tmp_path):
    (tmp_path / "qa.jsonl").write_text("{")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(UserError, match=r"qa.jsonl:1: not JSON"):
        EvaluateStage(**node).run(out, {})
    assert list(out.iterdir()) == []


def test_no_benchmark_is_an_error(seen, node):
    with pytest.raises(UserError, match="nothing to evaluate"):
        EvaluateStage(**node | {"benchmarks": {}})


def test_further_benchmarks_of_a_finished_run(seen, node, tmp_path):
    node |= {"init_from": "stage:finetune"}
    lines = [f"  {key}: {json.dumps(value)}" for key, value in node.items()]
    own = ["  _target_: x.EvaluateStage", "  runtime: {eval_batch_size: 5}"]
    (tmp_path / "config.yaml").write_text("\n".join(["evaluation:", *own, *lines]))
    write_result(tmp_path, {"metrics": {"lab": 1}, "stage_keys": {"finetune": "k2"}})
    further = {"again": node["benchmarks"]["lab"] | {"limit": 1}}
    result = evaluate_run(tmp_path, further, {"k2": tmp_path / "k2"}.get, {"accelerator": "cpu"})
    assert result["metrics"] == {"again": 100, "count": 100}
    assert result["costs"]["trained_stages"] == ["finetune"]
    assert result["folder"] == str(tmp_path / "evaluations" / "again")
    assert read_result(tmp_path)["metrics"] == {"lab": 1}
    assert seen[0]["batch_size"] == 5
    with pytest.raises(UserError, match=r"'finetune' \(k2\) is no longer in the store"):
        evaluate_run(tmp_path, further, {}.get, {})
    with pytest.raises(UserError, match=r"config.yaml: no such file"):
        evaluate_run(tmp_path / "nowhere", further, {}.get, {})


def test_device_without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert stage_module.device_of({"accelerator": "auto"}) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert stage_module.device_of({"accelerator": "auto"}) == "cuda"
    assert stage_module.device_of({"accelerator": "cpu"}) == "cpu"


def test_step_time_is_the_median_and_leaves_out_where_a_resumed_stage_starts_its_clock_anew(tmp_path):
    curves = tmp_path / "metrics.jsonl"
    times = [(1, 5.0), (10, 5.9), (20, 6.9), (30, 0.8), (40, 1.8), (50, 3.8)]  # 100, 100, -, 100, 200 ms
    curves.write_text("".join(json.dumps({"step": step, "seconds": seconds}) + "\n" for step, seconds in times))
    assert step_ms(curves) == pytest.approx(100)
    assert step_ms(tmp_path / "none.jsonl") is None
