"""An Optuna study that several controllers ask and tell, and that survives the death of any of them.

Asking happens under a lock (``mmexp.stages.lock``), so that the budget is kept exactly and no two controllers
miss each other's running trials. A running trial names its controller; when that one is gone, another takes the trial
over under its number: its stages resume from their checkpoints.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mmexp.errors import UserError
from mmexp.files import LOCKS_FOLDER
from mmexp.stages.lock import Lock, Watch, latest_owner, try_lock
from mmexp.sweeping.search.optuna_schema import KEY, Objective, make_pruner, make_sampler
from mmexp.sweeping.search.optuna_storage import default_name, open_storage
from mmexp.sweeping.search.space import Point, Space
from mmexp.sweeping.spec.sweep import Sweep

OWNER, INFEASIBLE, REASON, SAME_AS, TRIAL_KEYS = "controller", "infeasible", "reason", "same_as", "trial_keys"
"""User attributes of Optuna's trials."""
IDENTITY, LOCKS = "mmexp", "claims"
"""User attributes of the study: what its trials have in common; the folder by which controllers know of each other."""
WAIT_S = 0.05


class Search(Protocol):
    """What a study is of (``OptunaSearch``)."""

    sweep: Sweep
    space: Space
    objectives: tuple[Objective, ...]
    n_trials: int
    sampler: dict[str, Any]
    pruner: dict[str, Any] | None
    storage: str
    study_name: str | None


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A trial of the study that this controller must tell the end of."""

    number: int
    point: Point

    @property
    def row(self) -> str:
        return row_of(self.number)


class Study:
    """Made by ``open_study``; ``number`` counts the controllers that live at the same time, from 1 on."""

    def __init__(self, study: Any, storage: Any, search: Search, locks: Path, lock: Lock) -> None:
        self.study, self.storage, self.space, self.n_trials = study, storage, search.space, search.n_trials
        self.locks, self.lock, self.watch = locks, lock, Watch()
        self.owner = lock.path.name
        self.number = int(lock.path.name.split("-")[1].split(".")[0])
        self.distributions = self.space.distributions()

    def next(self) -> Suggestion | None:
        """A trial to run: one that a dead controller left, or a new one; None when the search is at its end."""
        from optuna.trial import TrialState

        with self._alone():
            trials = self.study.get_trials(deepcopy=False)
            left = self._left_behind(trials)
            if left is not None:
                return left
            if not any(trial.state == TrialState.WAITING for trial in trials):
                if len(self._points(trials, counted=True)) >= self.n_trials:
                    return None
                seen = self._points(trials, counted=False)
                if self.space.size is not None and len(seen) >= self.space.size:
                    return None
            trial = self.study.ask(self.distributions)
            trial.set_user_attr(OWNER, self.owner)
            return Suggestion(trial.number, dict(trial.params))

    def want(self, point: Point) -> None:
        """Have a point asked for next, unless it has been already."""
        self.study.enqueue_trial(dict(point), skip_if_exists=True)

    def retry_failed(self) -> None:
        """Have the points of failed trials asked for again."""
        from optuna.trial import TrialState

        states: dict[str, Any] = {}
        for trial in self.study.get_trials(deepcopy=False):
            if self._is_whole(trial):
                states[_text(trial.params)] = trial
        for trial in states.values():
            if trial.state == TrialState.FAIL:
                self.study.enqueue_trial(trial.params)

    def tell(self, suggestion: Suggestion, values: Sequence[float]) -> None:
        self.study.tell(suggestion.number, list(values), skip_if_finished=True)

    def tell_failed(self, suggestion: Suggestion, reason: str) -> None:
        from optuna.trial import TrialState

        self.note(suggestion, REASON, reason)
        self.study.tell(suggestion.number, state=TrialState.FAIL, skip_if_finished=True)

    def tell_pruned(self, suggestion: Suggestion, reason: str) -> None:
        from optuna.trial import TrialState

        self.note(suggestion, REASON, reason)
        self.study.tell(suggestion.number, state=TrialState.PRUNED, skip_if_finished=True)

    def tell_infeasible(self, suggestion: Suggestion, reason: str) -> None:
        """A point that is not trained: pruned, with the constraints that say so to the sampler."""
        from optuna.trial import TrialState

        self.note(suggestion, INFEASIBLE, reason)
        self.study.tell(suggestion.number, state=TrialState.PRUNED, skip_if_finished=True)

    def constrain(self, suggestion: Suggestion, excess: Mapping[str, float]) -> None:
        """Optuna's constraints of a running trial: 0 or less is feasible."""
        from optuna.trial import Trial

        trial_id = self._trial_id(suggestion)
        there = self.storage.get_trial(trial_id).constraints
        missing = {name: value for name, value in excess.items() if name not in there}
        if missing:
            trial = Trial(self.study, trial_id)
            for name, value in missing.items():
                trial.set_constraint(name, value)

    def note(self, suggestion: Suggestion, name: str, value: Any) -> None:
        self.storage.set_trial_user_attr(self._trial_id(suggestion), name, value)

    def report(self, suggestion: Suggestion, values: Mapping[int, float]) -> bool:
        """Take in intermediate values (step -> value); whether the trial should be ended now."""
        trial_id = self._trial_id(suggestion)
        known = self.storage.get_trial(trial_id).intermediate_values
        prune = False
        for step in sorted(values.keys() - known.keys()):
            self.storage.set_trial_intermediate_value(trial_id, step, values[step])
            prune = prune or self.study.pruner.prune(self.study, self.storage.get_trial(trial_id))
        return prune

    def trials(self) -> list[Any]:
        """Optuna's trials, oldest first."""
        return list(self.study.get_trials(deepcopy=False))

    def _trial_id(self, suggestion: Suggestion) -> int:
        study_id = self.storage.get_study_id_from_name(self.study.study_name)
        return int(self.storage.get_trial_id_from_study_id_trial_number(study_id, suggestion.number))

    def _left_behind(self, trials: Sequence[Any]) -> Suggestion | None:
        """A running trial whose controller is gone, taken over; one that was killed while it was drawn is given up."""
        from optuna.trial import TrialState

        for trial in trials:
            if trial.state != TrialState.RUNNING or self._is_cared_for(trial.user_attrs.get(OWNER)):
                continue
            suggestion = Suggestion(trial.number, dict(trial.params))
            if self._is_whole(trial):
                self.note(suggestion, OWNER, self.owner)
                return suggestion
            self.tell_failed(suggestion, "the controller was killed while it drew the point")
        return None

    def _is_cared_for(self, owner: str | None) -> bool:
        if owner is None or owner == self.owner:
            return owner is not None
        key, _, number = owner.rpartition(".")
        latest = latest_owner(self.locks, key)
        return latest is not None and latest.number == int(number) and self.watch.alive(latest)

    def _points(self, trials: Sequence[Any], counted: bool) -> set[str]:
        """Distinct points of the study; ``counted``: those that use the budget, infeasible ones apart."""
        return {
            _text(trial.params)
            for trial in trials
            if self._is_whole(trial) and not (counted and INFEASIBLE in trial.user_attrs)
        }

    def _is_whole(self, trial: Any) -> bool:
        return bool(trial.params.keys() == self.distributions.keys())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other controller asks meanwhile."""
        while not isinstance(lock := try_lock(self.locks, "ask", self.watch), Lock):
            time.sleep(WAIT_S)
        try:
            yield
        finally:
            lock.release(finished=False)


@contextmanager
def open_study(search: Search, name: str) -> Iterator[Study]:
    """Open the study, or make it; one more controller of it while open.

    Args:
        search: what it is of; its sweep's folder is where the study lies by default.
        name: of the study, where the search gives none.

    Raises:
        UserError: the storage cannot be used, or the study there is one of another search.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = search.sweep.folder
    storage = open_storage(search.storage, folder)
    study_name = search.study_name or name
    study = _load(storage, study_name, search)
    if LOCKS not in study.user_attrs:
        study.set_user_attr(LOCKS, str(folder / LOCKS_FOLDER / default_name(study_name)))
    locks = Path(study.user_attrs[LOCKS])
    lock = _first_free(locks)
    try:
        made = Study(study, storage, search, locks, lock)
        num_trials = len(study.get_trials(deepcopy=False))
        study.sampler = make_sampler(search.sampler, search.space, made.number, num_trials)
        study.pruner = make_pruner(search.pruner)
        study.stop = lambda: None  # a sampler that runs out would end Optuna's own loop; ``next`` ends ours
        yield made
    finally:
        lock.release(finished=False)


def row_of(number: int) -> str:
    """Name of a trial's row in ledger and report."""
    return f"trial_{number:04d}"


def _load(storage: Any, name: str, search: Search) -> Any:
    """The study of that name, made where there is none, or none that has got anywhere."""
    import optuna

    directions: Any = [objective.direction for objective in search.objectives]
    identity = _identity(search)

    def create() -> Any:
        study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
        if IDENTITY not in study.user_attrs:
            study.set_user_attr(IDENTITY, identity)
        return study

    study = create()
    there = study.user_attrs[IDENTITY]
    if there == identity:
        return study
    if not any(trial.state.is_finished() for trial in study.get_trials(deepcopy=False)):
        optuna.delete_study(study_name=name, storage=storage)
        return create()
    raise UserError(
        f"{KEY}: study '{name}' has {_difference(there, identity)}; go back to that, or begin a new study with "
        f"{KEY}.study=NAME"
    )


def _identity(search: Search) -> dict[str, Any]:
    objectives = [[objective.metric, objective.direction] for objective in search.objectives]
    return {"space": search.space.identity(), "objectives": objectives, "seeds": list(search.sweep.seeds)}


def _difference(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What the study has and the config has not, in words."""
    for part in ("objectives", "seeds"):
        if there.get(part) != now[part]:
            return f"other {part} ({json.dumps(there.get(part))}, now {json.dumps(now[part])})"
    for name in {**there["space"], **now["space"]}:
        old, new = there["space"].get(name), now["space"].get(name)
        if old is None:
            return f"another search space (it has no {name})"
        if new is None:
            return f"another search space (it has {name})"
        if old != new:
            return f"another search space ({name}: {_values(old)}, now {_values(new)})"
    return "another search space"


def _values(dimension: Mapping[str, Any]) -> str:
    if dimension["choices"]:
        return " ".join(dimension["choices"])
    return f"{dimension['low']:g} to {dimension['high']:g}"


def _first_free(locks: Path) -> Lock:
    """This controller's place among those that live."""
    watch, number = Watch(), 1
    while not isinstance(lock := try_lock(locks, f"controller-{number}", watch), Lock):
        number += 1
    return lock


def _text(point: Mapping[str, Any]) -> str:
    return json.dumps(dict(sorted(point.items())))
