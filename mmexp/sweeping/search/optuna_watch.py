"""Pruning: the stage that counts validates itself while it runs, and a trial that looks bad is ended.

The worker writes lines ``{"step": 50, "val/overall": 41.2}`` into its ``metrics.jsonl``; the controller reads them,
tells Optuna, and ends the trial where the pruner says so. Validation changes nothing in the training, so it is part of
``runtime`` and of no key.
"""

import json
from pathlib import Path
from typing import Any

from mmexp.errors import UserError, nearest
from mmexp.files import METRICS_FILE
from mmexp.stages.graph import references
from mmexp.sweeping.search.optuna_schema import KEY, Validation
from mmexp.sweeping.spec.sweep import Sweep
from mmexp.sweeping.spec.trials import Trial

SCORER = "mmexp.evaluation.validation.Validation"
PREFIX = "val/"


class Watch:
    """Validation of the trials of a search.

    Args:
        sweep: its base config says how to ask and score.
        validation: how often, on what.

    Raises:
        UserError: there is no such benchmark.
    """

    def __init__(self, sweep: Sweep, validation: Validation) -> None:
        self.validation, self.store = validation, sweep.store
        self.benchmarks = sweep.resolved(f"benchmark=[{validation.benchmark}]")["benchmarks"]

    def arm(self, trial: Trial) -> None:
        """Let the last training stage of a trial validate itself. Raises ``UserError`` where it lacks the data."""
        spec = self.stage_of(trial)
        for name, _ in references(self.benchmarks, f"benchmark={self.validation.benchmark}"):
            if name not in spec.parents:
                raise UserError(
                    f"{KEY}.validation.benchmark: '{self.validation.benchmark}' needs {name}, which {spec.where} lacks"
                )
        spec.runtime["validation"] = {
            "every_steps": self.validation.every_steps,
            "scorer": {
                "_target_": SCORER,
                "benchmarks": self.benchmarks,
                "aggregates": trial.config.get("aggregates") or {},
                "template": trial.config["evaluation"]["template"],
                "use_images": trial.config["evaluation"]["use_images"],
                "precision": trial.config["evaluation"]["precision"],
            },
        }

    def stage_of(self, trial: Trial) -> Any:
        """The stage whose validation counts: the one that the evaluation starts from."""
        return trial.graph.stages[str(trial.config["recipe"]["last"])]

    def values(self, trial: Trial) -> dict[int, float]:
        """Step -> validation metric, as far as the stage has got.

        Raises:
            UserError: validation has no such metric.
        """
        spec = self.stage_of(trial)
        folder = self.store.find(spec.key) or self.store.unfinished(spec)
        return read_values(folder, self.validation.metric) if folder else {}


def read_values(folder: Path, metric: str) -> dict[int, float]:
    """Step -> value of a validation metric in ``metrics.jsonl``; half a line at its end is left out."""
    try:
        lines = (folder / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        names = [name.removeprefix(PREFIX) for name in record if name.startswith(PREFIX)]
        if names and metric not in names:
            raise UserError(f"{KEY}.validation.metric: no metric '{metric}'; {nearest(metric, names)}")
        if names and isinstance(record[PREFIX + metric], int | float):
            found[int(record["step"])] = float(record[PREFIX + metric])
    return found
