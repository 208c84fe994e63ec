"""``study.json``: a study as plain data beside the ledger, for the report; written after every change."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmexp.files import STUDY_FILE, write_json
from mmexp.sweeping.search.optuna_settings import Settings
from mmexp.sweeping.search.optuna_storage import shown, storage_name
from mmexp.sweeping.search.optuna_study import INFEASIBLE, REASON, SAME_AS, Study, row_of
from mmexp.sweeping.session import Session
from mmexp.sweeping.spec.space import Space

STATES = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


def write_record(folder: Path, session: Session, settings: Settings, space: Space, study: Study) -> None:
    """Write the state of a study."""
    trials = [_trial(trial) for trial in study.trials()]
    value = {
        "name": session.line.name,
        "scale": session.order.scale,
        "study": study.study.study_name,
        "storage": shown(storage_name(settings.storage, session.folder)),
        "sampler": settings.sampler.kind,
        "pruner": settings.pruner.kind if settings.pruner else None,
        "n_trials": settings.n_trials,
        "size": space.size,
        "space": {dimension.name: str(dimension) for dimension in space.dimensions},
        "objectives": [{"metric": one.metric, "direction": one.direction} for one in settings.objectives],
        "constraints": [str(limit) for limit in settings.constraints],
        "trials": trials,
        "best": best_of(trials, [one.direction for one in settings.objectives]),
    }
    write_json(folder / STUDY_FILE, value)


def best_of(trials: list[dict[str, Any]], directions: list[str]) -> list[int]:
    """Numbers of the trials that no other one beats: the best ones, or the Pareto set; each point once."""
    signs = [1 if direction == "maximize" else -1 for direction in directions]
    values = {
        trial["number"]: tuple(sign * value for sign, value in zip(signs, trial["values"], strict=True))
        for trial in trials
        if trial["state"] == "done" and trial["same_as"] is None
    }
    return [number for number, own in values.items() if not any(_beats(other, own) for other in values.values())]


def _beats(other: tuple[float, ...], own: tuple[float, ...]) -> bool:
    return other != own and all(theirs >= mine for theirs, mine in zip(other, own, strict=True))


def _trial(trial: Any) -> dict[str, Any]:
    facts: Mapping[str, Any] = trial.user_attrs
    infeasible = facts.get(INFEASIBLE)
    return {
        "number": trial.number,
        "row": row_of(trial.number),
        "state": "infeasible" if infeasible else STATES[trial.state.name],
        "params": dict(trial.params),
        "values": trial.values if trial.state.name == "COMPLETE" else None,
        "intermediate": {str(step): value for step, value in sorted(trial.intermediate_values.items())},
        "constraints": dict(trial.constraints),
        "reason": infeasible or facts.get(REASON, ""),
        "same_as": facts.get(SAME_AS),
    }
