"""What a sweep knows of its trials, in one file that only its controller writes.

``ledger.json``: ``name``, ``scale``, ``sweep`` (the config node), ``command``; ``trials``, one entry for each cell of
the table as it is now; ``stages``, key -> how making it went; ``earlier``, trials of former forms of the table;
``search``, what a kind of sweep that chooses its trials has decided (its form is that kind's).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mmexp.errors import UserError
from mmexp.files import DONE, FAILED, LEDGER_FILE, NOT_SELECTED, PENDING, read_json, write_json
from mmexp.stages.store import Store
from mmexp.sweeping.spec.trials import Place, Trial


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
        self.folder, self.path, self.head = folder, folder / LEDGER_FILE, head
        before = read_json(self.path) or {}
        if self.path.is_file() and not before:
            raise UserError(f"{self.path}: not readable; move it away (finished trials are found without it)")
        self.stages: dict[str, dict[str, Any]] = before.get("stages", {})
        self.trials: list[dict[str, Any]] = []
        """Cells of the table as it is now."""
        self._there: dict[Place, dict[str, Any]] = {}
        self.search: dict[str, Any] = {}
        """What a search has decided, in JSON; saved with the rest."""
        self._before: list[dict[str, Any]] = [*before.get("earlier", []), *before.get("trials", [])]

    def enter(self, trials: Sequence[Trial], store: Store) -> None:
        """Add cells to the table as it is now; those that are in it stay as they are."""
        for trial in trials:
            entry = _entry(trial, store)
            if self._there.setdefault(_place(entry), entry) is entry:
                self.trials.append(entry)
        self.save()

    def entry(self, trial: Trial) -> dict[str, Any]:
        """The cell of a trial that has been entered."""
        return self._there[trial.place]

    def earlier(self) -> list[dict[str, Any]]:
        """Cells of earlier runs that are not in the table now."""
        before = {_place(entry): entry for entry in self._before}
        return [entry for place, entry in before.items() if place not in self._there]

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

    def describe(self, sweep: Mapping[str, Any], search: Mapping[str, Any]) -> None:
        """What the sweep's node and a search's decisions are now."""
        self.head, self.search = replace(self.head, sweep=sweep), dict(search)

    def save(self) -> None:
        """Raises ``UserError`` when it cannot be written."""
        value = {**asdict(self.head), "trials": self.trials, "stages": self.stages, "earlier": self.earlier()}
        value |= {"search": self.search} if self.search else {}
        try:
            write_json(self.path, value)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); choose another paths.root") from None


def _place(entry: Mapping[str, Any]) -> Place:
    return (entry["key"], entry["row"], str(entry["axes"]), entry["seed"])


def _entry(trial: Trial, store: Store) -> dict[str, Any]:
    folder = store.find(trial.key)
    request = trial.request
    return {
        "row": request.row,
        "label": request.label,
        "selected": request.selected,
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
