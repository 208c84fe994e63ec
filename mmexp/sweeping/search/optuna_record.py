"""An Optuna study as plain data, for the ledger and the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmexp.sweeping.search.optuna_study import INFEASIBLE, REASON, SAME_AS, row_of

STATES = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


def told_trials(trials: Sequence[Any]) -> list[dict[str, Any]]:
    """Optuna's trials in JSON."""
    return [_trial(trial) for trial in trials]


def best_of(trials: Sequence[Mapping[str, Any]], directions: Sequence[str]) -> list[int]:
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
