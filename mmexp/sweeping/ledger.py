"""What a sweep knows of its trials, in one file that only its controller writes.

``ledger.json``: ``name``, ``scale``, ``sweep`` (the config node), ``command``; ``trials``, one entry for each cell of
the table as it is now; ``stages``, key -> how making it went; ``earlier``, trials of former forms of the table.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmexp.errors import UserError
from mmexp.recipe.files import read_json, write_json
from mmexp.recipe.store import Store
from mmexp.sweeping.trials import Trial
from mmexp.sweeping.work import DONE, FAILED

LEDGER = "ledger.json"
PENDING, RUNNING, NOT_SELECTED = "pending", "running", "not selected"


@dataclass(frozen=True, kw_only=True)
class Head:
    """What a sweep is."""

    name: str
    """Of the sweep, with what the command line changes in it."""
    scale: str
    sweep: Mapping[str, Any]
    """The config node."""
    command: tuple[str, ...]
    """Overrides that it was started with."""


class Ledger:
    """The file ``<folder>/ledger.json``.

    Raises:
        UserError: there is one that cannot be read.
    """

    def __init__(self, folder: Path, head: Head) -> None:
        self.folder, self.path, self.head = folder, folder / LEDGER, head
        before = read_json(self.path) or {}
        if self.path.is_file() and not before:
            raise UserError(f"{self.path}: not readable; move it away (finished trials are found without it)")
        self.stages: dict[str, dict[str, Any]] = before.get("stages", {})
        self.trials: list[dict[str, Any]] = []
        self._before: list[dict[str, Any]] = [*before.get("earlier", []), *before.get("trials", [])]
        self._earlier: list[dict[str, Any]] = []

    def begin(self, trials: Sequence[Trial], store: Store) -> None:
        """Enter the table as it is now."""
        now = {_place(trial): trial.key for trial in trials}
        self.trials = [_entry(trial, store) for trial in trials]
        old = {(entry["key"], entry["row"], str(entry["axes"]), entry["seed"]): entry for entry in self._before}
        self._earlier = [entry for place, entry in old.items() if now.get(place[1:]) != place[0]]
        self.save()

    def failure(self, key: str) -> dict[str, Any] | None:
        """How an earlier try to make a stage failed."""
        stage = self.stages.get(key)
        return stage if stage and stage["status"] == FAILED else None

    def stage(self, key: str, **facts: Any) -> None:
        """Note facts of one stage: ``name``, ``status``, ``reason``, ``log_tail``, ``log``, ``seconds``."""
        self.stages.setdefault(key, {}).update(facts, time=round(time.time(), 1))

    def trial(self, key: str, **facts: Any) -> None:
        """Note facts of the cells that a trial fills."""
        for entry in self.trials:
            if entry["key"] == key:
                entry.update(facts)

    def count(self, *statuses: str) -> int:
        return sum(entry["status"] in statuses for entry in self.trials)

    def save(self) -> None:
        """Raises ``UserError`` when it cannot be written."""
        value = {**asdict(self.head), "trials": self.trials, "stages": self.stages, "earlier": self._earlier}
        try:
            write_json(self.path, value)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); choose another paths.root") from None


def _place(trial: Trial) -> tuple[str, str, int]:
    return (trial.request.row, str(dict(trial.request.axes)), trial.request.seed)


def _entry(trial: Trial, store: Store) -> dict[str, Any]:
    folder = store.find(trial.key)
    request = trial.request
    return {
        "row": request.row,
        "axes": dict(request.axes),
        "seed": request.seed,
        "overrides": [*request.overrides, f"seed={request.seed}"],
        "key": trial.key,
        "stage_keys": trial.graph.keys,
        "status": DONE if folder else (PENDING if request.selected else NOT_SELECTED),
        "reason": "",
        "log_tail": "",
        "folder": str(folder) if folder else None,
    }
