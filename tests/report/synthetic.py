"""Sweeps whose truth is known: answers drawn with given probabilities, written as real run directories."""

import json
from pathlib import Path

import numpy as np

from mmexp.evaluation.metrics import Answers, metric_name
from mmexp.evaluation.result import aggregate, write_predictions, write_result
from mmexp.report.results import SweepResults, Trial
from tests.rules import make_metric, metric_node

FAMILIES = ("existence", "count", "attribute", "absolute_position", "relative_position")
OVERALL = {"overall": {"metrics": dict.fromkeys(FAMILIES, 1)}}


def lab_answers(skill: float, seed_noise: float, seed: int, row: str, questions: int = 200) -> Answers:
    """Questions of five families; easy and hard ones are the same for all rows (what pairing is for)."""
    n = questions * len(FAMILIES)
    hardness = np.random.default_rng(7).normal(0, 0.25, n)
    rng = np.random.default_rng([seed, *row.encode()])
    chance = np.clip(skill + rng.normal(0, seed_noise) + hardness, 0, 1)
    right = rng.random(n) < chance
    return Answers(
        question_ids=[str(index) for index in range(n)],
        families=[FAMILIES[index % len(FAMILIES)] for index in range(n)],
        images=[""] * n,
        questions=[f"q{index}" for index in range(n)],
        predictions=["yes" if is_right else "no" for is_right in right],
        answers=["yes"] * n,
        scores=right.astype(float),
    )


def write_run(folder: Path, answers: Answers, **extra) -> None:
    folder.mkdir(parents=True)
    metric = make_metric("lab_family", "exact")
    values = metric.values(answers, np.ones((1, len(answers))))
    metrics = {metric_name(metric, "lab", name): float(value[0]) for name, value in values.items()}
    write_predictions(folder, {"lab": answers})
    result = {
        "metrics": metrics | aggregate(metrics, OVERALL),
        "costs": {
            "visual_tokens": 64,
            "parameters": 1_234_567,
            "projector_parameters": 50_000,
            "step_ms": 81.25,
            "seconds": 51.5,
            "trained_stages": ["align", "finetune"],
        },
        "scoring": {"benchmarks": {"lab": {"metric": metric_node("lab_family", "exact")}}, "aggregates": OVERALL},
    }
    write_result(folder, result | extra)
    curve = [
        {"stage": stage, "step": step, "loss": 3 / (1 + step / 20)}
        for stage in ("world", "align", "finetune")
        for step in range(0, 200, 10)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, curve)))


def trial(row: str, seed: int, folder: Path | None, **changes) -> Trial:
    values = {
        "row": row,
        "axes": {},
        "seed": seed,
        "key": f"{row}{seed}",
        "status": "done",
        "reason": "",
        "log_tail": "",
        "overrides": ("recipe=blind",) if row == "blind" else (f"projector={row}",),
        "folder": folder,
    }
    return Trial(**values | changes)


def sweep(folder: Path, skills: dict[str, float], seeds=(0, 1, 2), seed_noise: float = 0.01, **node) -> SweepResults:
    """A finished sweep: row -> share of right answers in the mean."""
    trials = []
    for row, skill in skills.items():
        for seed in seeds:
            run = folder / "runs" / f"{len(trials)}"
            write_run(run, lab_answers(skill, 0 if row == "blind" else seed_noise, seed, row))
            trials.append(trial(row, seed, run))
    rows = {row: {"overrides": [f"projector={row}"]} for row in skills if row != "blind"}
    defaults = {"metric": "overall", "baseline": next(iter(skills)), "rows": rows}
    return SweepResults(name="synthetic/demo", scale="lab", node=defaults | node, trials=tuple(trials))
