"""Stages that take no time to import, for tests of the store and the engine."""

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmexp.errors import UserError
from mmexp.files import write_json

JOURNAL = "MMEXP_FAKE_JOURNAL"
"""Environment variable: a file that gets a line for each step that is really done."""


class Count:
    """Counts to ``steps``, with a checkpoint after each; the product depends on ``value`` and its parents' products.

    ``trouble``: what goes wrong at the last step.
    """

    VERSION = 1

    def __init__(
        self,
        *,
        value: int,
        seed: int,
        steps: int,
        parents: list[str],
        trouble: str | None,
        num_threads: int | None = None,
    ) -> None:
        if value < 0:
            raise UserError(f"value: {value} is negative")
        self.value, self.seed, self.steps, self.parents, self.trouble = value, seed, steps, parents, trouble

    def run(self, workdir: Path, runtime: Mapping[str, Any]) -> None:
        checkpoint = workdir / "checkpoint.json"
        start = json.loads(checkpoint.read_text())["step"] if checkpoint.is_file() else 0
        for step in range(start, self.steps):
            if step == self.steps - 1:
                get_into(self.trouble, runtime)
            time.sleep(runtime.get("seconds", 0) / self.steps)
            journal(f"{workdir.name.split('.')[0]} {step}")
            write_json(checkpoint, {"step": step + 1})
            runtime["progress"](step + 1, self.steps)
        products = [(Path(parent) / "product.txt").read_text() for parent in self.parents]
        text = f"{self.value} {self.seed} {' '.join(products)}"
        (workdir / "product.txt").write_text(hashlib.sha256(text.encode()).hexdigest())
        (workdir / "metrics.jsonl").write_text(json.dumps({"step": self.steps, "loss": self.value}) + "\n")
        checkpoint.unlink(missing_ok=True)


class Score(Count):
    """The last stage of a trial: also writes a result."""

    VERSION = 3

    def run(self, workdir: Path, runtime: Mapping[str, Any]) -> None:
        super().run(workdir, runtime)
        product = (workdir / "product.txt").read_text()
        names = ("trial_key", "stage_keys", "stage_seconds", "config_choices")
        write_json(
            workdir / "result.json",
            {
                "metrics": {"score": int(product[:4], 16) / 655.36},
                "costs": {},
                **{name: runtime[name] for name in names},
            },
        )


class Inherited(Count):
    """Has its parent's version."""


def get_into(trouble: str | None, runtime: Mapping[str, Any]) -> None:
    if trouble == "raise":
        raise RuntimeError("the stage broke")
    if trouble == "user":
        raise UserError("data/x.jsonl:3: not a record")
    if trouble == "exit":
        sys.exit(3)
    if trouble == "hard_exit":
        os._exit(5)
    if trouble == "kill":
        os.kill(os.getpid(), 9)
    if trouble == "hang":
        time.sleep(60)
    if trouble == "disk":
        Path("/dev/full").write_text("this device is always full")
    if trouble == "memory":
        bytearray(1 << 50)
    if trouble == "noise":
        sys.stdout.buffer.write(b"\x00\xff\x1b[31mnoise\r" * 3000)
        sys.stdout.flush()
        raise RuntimeError("after noise")
    if trouble == "once" and not Path(os.environ[JOURNAL]).with_suffix(".again").exists():
        raise RuntimeError("not this time")


def journal(line: str) -> None:
    path = os.environ.get(JOURNAL)
    if path:
        with open(path, "a") as file:
            file.write(line + "\n")


def config(
    root: Path, *, value: int = 1, seed: int = 0, trouble: str | None = None, seconds: float = 0.0
) -> dict[str, Any]:
    """A resolved config: base (lab) -> align -> finetune(value) -> evaluate. ``align`` does not depend on ``value``."""

    def stage(parents: list[str], **changes: Any) -> dict[str, Any]:
        node = {
            "_target_": "tests.fakes.Count",
            "value": 0,
            "seed": seed,
            "steps": 3,
            "parents": parents,
            "trouble": None,
        }
        return {**node, **changes, "runtime": {"seconds": seconds}}

    return {
        "seed": seed,
        "paths": {name: str(root / name) for name in ("store", "runs", "sweeps")},
        "allow_targets": ["tests."],
        "lab": {"stages": {"base": stage([], seed=0)}},
        "recipe": {
            "stages": {
                "align": stage(["stage:base"]),
                "finetune": stage(["stage:align", "stage:base"], value=value, trouble=trouble),
            }
        },
        "evaluation": stage(["stage:finetune"], _target_="tests.fakes.Score", num_threads=1),
    }


class ScoreModel(Score):
    """A last stage with the arguments of the real one, for configs that are composed from the shipped files."""

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


def run_graph(graph: Any, store: Any, context: Any) -> Path:
    """Make everything that the last stage needs and lacks, in this process; returns the last stage's folder."""
    from mmexp.stages.run import missing_stages, run_stage

    for name in missing_stages(graph, store):
        run_stage(graph.stages[name], store, context)
    return store.find(graph.key)


FILES = {
    "experiments/fake.yaml": """\
# @package _global_
# Fake stages.
defaults:
  - override /recipe: fake
  - override /logger: none
evaluation:
  _target_: tests.fakes.ScoreModel
allow_targets: ["tests."]
""",
    "conf/recipe/fake.yaml": """\
# One fake stage before the evaluation.
last: finetune
use_images: true
model: ${model}
value: 1
trouble: null
stages:
  finetune:
    _target_: tests.fakes.Count
    value: ${recipe.value}
    seed: ${seed}
    steps: 2
    parents: []
    trouble: ${recipe.trouble}
    num_threads: 1
    runtime: {seconds: 0.0}
""",
    "conf/recipe/fake_blind.yaml": """\
# The same stage without images.
defaults: [fake]
use_images: false
""",
    "sweeps/mine.yaml": """\
# @package _global_
# Fake rows.
defaults:
  - override /experiments: fake
sweep:
  metric: score
  baseline: one
  seeds: [0, 1]
  rows:
    one: {overrides: [recipe.value=1]}
    two: {overrides: [recipe.value=2], published: {score: 5.0}}
""",
}


def write_user_folders(root: Path) -> Path:
    """A user's own conf/, experiments/ and sweeps/ with fake stages."""
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root
