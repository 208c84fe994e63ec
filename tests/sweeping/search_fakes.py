"""A stage that validates itself while it runs, and configs of searches over it."""

import io
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from mmexp.sweeping.session import Order, run_sweep
from mmexp.sweeping.workers.local import LocalLauncher
from tests import fakes


class Learn(fakes.Count):
    """Counts like ``Count``; where ``runtime.validation`` asks, writes ``val/mean`` = value + step / steps."""

    VERSION = 1

    def __init__(self, *, value: float, seed: int, steps: int, parents: list[str], trouble: str | None) -> None:
        self.value, self.seed, self.steps, self.parents, self.trouble = value, seed, steps, parents, trouble

    def run(self, workdir: Path, runtime: Mapping[str, Any]) -> None:
        checkpoint, lines = workdir / "checkpoint.json", workdir / "metrics.jsonl"
        start = json.loads(checkpoint.read_text())["step"] if checkpoint.is_file() else 0
        asked = runtime.get("validation")
        for step in range(start, self.steps):
            if step == self.steps - 1:
                fakes.get_into(self.trouble, runtime)
            time.sleep(runtime.get("seconds", 0) / self.steps)
            fakes.journal(f"{workdir.name.split('.')[0]} {step}")
            if asked and (step + 1) % asked["every_steps"] == 0:
                with lines.open("a") as file:
                    file.write(json.dumps({"step": step + 1, "val/mean": self.value + step / self.steps}) + "\n")
            checkpoint.write_text(json.dumps({"step": step + 1}))
            runtime["progress"](step + 1, self.steps)
        (workdir / "product.txt").write_text(f"{self.value}")
        checkpoint.unlink(missing_ok=True)


class Measure(Learn):
    """The last stage: the score is its parent's value, the cost that value's distance from 5."""

    VERSION = 1

    def __init__(
        self,
        *,
        model: Mapping[str, Any],
        init_from: str,
        benchmarks: Mapping[str, Any],
        aggregates: Mapping[str, Any],
        template: Mapping[str, Any],
        use_images: bool,
        seed: int,
        num_threads: int | None,
        precision: str,
    ) -> None:
        super().__init__(value=0, seed=seed, steps=1, parents=[init_from], trouble=None)

    def run(self, workdir: Path, runtime: Mapping[str, Any]) -> None:
        value = float((Path(self.parents[0]) / "product.txt").read_text())
        fakes.journal(f"{workdir.name.split('.')[0]} 0")
        result = {"metrics": {"mean": value, "low": -value}, "costs": {"visual_tokens": abs(value - 5)}}
        facts = {name: runtime[name] for name in ("trial_key", "stage_keys", "stage_seconds", "config_choices")}
        (workdir / "result.json").write_text(json.dumps({**result, **facts}))


EXPERIMENT = """\
# @package _global_
# Fake stages.
defaults:
  - override /recipe: learn
  - override /logger: none
evaluation:
  _target_: tests.sweeping.search_fakes.Measure
aggregates:
  mean: {metrics: {score: 1}}
allow_targets: ["tests."]
"""
RECIPE = """\
# One fake stage before the evaluation.
last: finetune
use_images: true
model: null
value: 1
plus: 0
trouble: null
seconds: 0.0
stages:
  finetune:
    _target_: tests.sweeping.search_fakes.Learn
    value: ${recipe.value}
    seed: ${seed}
    steps: 4
    parents: []
    trouble: ${recipe.trouble}
    runtime: {seconds: "${recipe.seconds}"}
"""
SPACE = """\
    space:
      recipe.value: [1, 2, 3, 4, 5, 6]
"""
PRUNED = """\
    n_trials: 6
    sampler: {_target_: optuna.samplers.GridSampler}
    pruner: {_target_: optuna.pruners.MedianPruner, n_startup_trials: 1}
    validation: {every_steps: 1, metric: mean, benchmark: pope}
"""
ROWS = """\
  seeds: [0]
  baseline: base
  rows:
    base: {overrides: [recipe.value=6]}
"""
SWEEP = """\
# @package _global_
# A fake search.
defaults:
  - override /experiments: learn
sweep:
  seeds: [0]
  search:
    _target_: mmexp.sweeping.search.optuna_search.OptunaSearch
    space:
      recipe.value: [1, 2, 3, 4, 5, 6]
    n_trials: 4
    objectives: [{metric: mean, direction: maximize}]
"""


def write_user_folders(root: Path) -> Path:
    """A user's own conf/, experiments/ and sweeps/ with a search."""
    files = {
        "experiments/learn.yaml": EXPERIMENT,
        "conf/recipe/learn.yaml": RECIPE,
        "sweeps/search.yaml": SWEEP,
        "sweeps/bare.yaml": SWEEP.replace(SPACE, ""),
        "sweeps/fewer.yaml": SWEEP.replace("[1, 2, 3, 4, 5, 6]", "[1, 2, 3]"),
        "sweeps/pruned.yaml": SWEEP.replace("    n_trials: 4\n", PRUNED),
        "sweeps/rows.yaml": SWEEP.replace("  seeds: [0]\n", ROWS),
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def order(launcher: Any, arguments: list[str], shown: io.StringIO) -> Order:
    return Order(
        scale="paper",
        arguments=arguments,
        launcher=launcher,
        dry_run=False,
        retry_failed=False,
        report=lambda folder, console: None,
        validate=lambda config: None,
        console=Console(file=shown, width=150),
    )


if __name__ == "__main__":
    # A controller, to be killed or joined: overrides. Configs are in the working directory.
    run_sweep(order(LocalLauncher(n_jobs=1, timeout_s=None, fork=True, preload=()), sys.argv[1:], io.StringIO()))
