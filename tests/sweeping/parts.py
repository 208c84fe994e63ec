"""A fake model whose score is looked up by the set of its parts: landscapes for searches."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from mmexp.config import Composed
from mmexp.config.schema import read_node
from mmexp.files import write_json
from mmexp.stages.graph import build_graph
from mmexp.sweeping.spec.command_line import read_command_line
from mmexp.sweeping.spec.schema import SweepNode
from mmexp.sweeping.spec.table import Request
from mmexp.sweeping.spec.trials import Trial
from tests.fakes import Count, Score, get_into, journal

LANDSCAPE = "MMEXP_FAKE_LANDSCAPE"
"""Environment variable: JSON file, sorted parts joined by + -> score, list of scores by seed, or name of a trouble."""


class Train(Count):
    VERSION = 1

    def __init__(self, *, parts: list[str], bonus: float, seed: int, num_threads: int) -> None:
        super().__init__(value=0, seed=seed, steps=1, parents=[], trouble=None)
        self.parts, self.bonus = parts, bonus

    def run(self, workdir: Path, runtime: Mapping[str, Any]) -> None:
        score = json.loads(Path(os.environ[LANDSCAPE]).read_text()).get("+".join(sorted(self.parts)), 0.0)
        if isinstance(score, str):
            get_into(score, runtime)
            score = 0.0
        score = score[self.seed] if isinstance(score, list) else score
        journal(f"{'+'.join(self.parts)} {self.seed}")
        write_json(workdir / "product.json", {"score": score + self.bonus, "tokens": 10 * len("".join(self.parts))})


class ScoreParts(Score):
    VERSION = 1

    def run(self, workdir: Path, runtime: Mapping[str, Any]) -> None:
        product = json.loads((Path(self.parents[0]) / "product.json").read_text())
        result = {
            "metrics": {"score": product["score"]},
            "costs": {"visual_tokens": product["tokens"], "parameters": 7},
        }
        write_json(workdir / "result.json", result)


def config(root: Path, seed: int, parts: list[str], bonus: float) -> dict[str, Any]:
    """A resolved config: train(parts) -> evaluate."""
    train = {"_target_": "tests.sweeping.parts.Train", "parts": parts, "bonus": bonus, "seed": seed, "num_threads": 1}
    last = {"value": 0, "seed": seed, "steps": 1, "parents": ["stage:train"], "trouble": None}
    return {
        "seed": seed,
        "paths": {name: str(root / name) for name in ("store", "runs", "sweeps")},
        "allow_targets": ["tests."],
        "recipe": {"stages": {"train": train}},
        "evaluation": {"_target_": "tests.sweeping.parts.ScoreParts", **last},
    }


class Sweep:
    """Stands for an open sweep: what is asked for is built here instead of composed."""

    scale, adds_blind, retry_failed = "paper", False, False

    def __init__(self, root: Path, console: Console, node: Mapping[str, Any], seeds: Sequence[int]) -> None:
        self.root, self.events, self.raw, self.seeds = root, console, dict(node), tuple(seeds)
        self.node = read_node(SweepNode, node, "sweep")
        self.line = read_command_line([])
        self.base = Composed(OmegaConf.create({"parts": []}), {}, self.scale)

    def say(self, text: str) -> None:
        self.events.print(text, markup=False)

    def request(self, row: str, seed: int, overrides: Sequence[str]) -> Request:
        return Request(row=row, axes={}, seed=seed, overrides=tuple(overrides))

    def search_node(self) -> dict[str, Any]:
        return dict(self.node.search or {})

    def submit(self, requests: Sequence[Request]) -> list[Trial]:
        found = []
        for request in requests:
            values = dict(text.split("=") for text in request.overrides)
            names = values["parts"].strip("[]").split(",")
            resolved = config(self.root, request.seed, names, float(values.get("bonus", 0)))
            found.append(Trial(request=request, config=resolved, choices={}, graph=build_graph(resolved)))
        return found


def write_landscape(root: Path, scores: Mapping[str, Any]) -> Path:
    path = root / "landscape.json"
    path.write_text(json.dumps(scores))
    return path
