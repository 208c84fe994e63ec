"""What ``sweep.search`` of an Optuna search says beside its space, typed; and the sampler and pruner that it names."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from mmexp.config.schema import Node
from mmexp.errors import UserError, nearest
from mmexp.evaluation.metrics import names_itself
from mmexp.instantiate import instantiate, locate
from mmexp.sweeping.search.space import Space
from mmexp.sweeping.spec.trials import Measured

KEY = "sweep.search"
TPE = {"_target_": "optuna.samplers.TPESampler"}
COSTS = ("visual_tokens", "parameters", "seconds", "training_seconds", "evaluation_seconds", "seconds_per_question")
"""Of a result's ``costs``: they can be objectives beside metrics."""
Quantity = Literal["connector_parameters", "parameters", "trained_parameters", "visual_tokens"]
"""Known from shapes before anything is trained."""


class Objective(Node):
    """What is searched for."""

    metric: str
    """Of a result's metrics, aggregates or costs; its mean over seeds."""
    direction: Literal["maximize", "minimize"] = "maximize"


class Limit(Node):
    """Bounds of a quantity; a point outside is infeasible and never trained."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> "Limit":
        if self.min is None and self.max is None:
            raise ValueError("write {max: NUMBER}, {min: NUMBER} or both")
        return self

    def excess(self, value: float) -> float:
        """How far outside, relative to the limit; 0 or less is inside (Optuna's convention)."""
        over = [value - self.max] if self.max is not None else []
        over += [self.min - value] if self.min is not None else []
        return max(over) / max(abs(self.max or 0), abs(self.min or 0), 1)

    def text(self, quantity: str) -> str:
        """``10 <= quantity <= 20``."""
        low = f"{self.min:g} <= " if self.min is not None else ""
        return f"{low}{quantity}{f' <= {self.max:g}' if self.max is not None else ''}"


class Validation(Node):
    """What a pruner sees: the first seed's last training stage is validated while it runs."""

    every_steps: int = Field(ge=1)
    metric: str
    """Of ``benchmark``, or an aggregate of it."""
    benchmark: str = "val"
    """Option of the group ``benchmark``: not what is reported in the end."""


def check_metrics(objectives: Sequence[Objective], config: Mapping[str, Any]) -> None:
    """Objectives that no result of this config can have, as far as the config tells.

    Benchmarks that name their parts after question families may have further metrics; those show with the first result.

    Raises:
        UserError: with the nearest name.
    """
    benchmarks = config.get("benchmarks") or {}
    known = {*(config.get("aggregates") or {}), *benchmarks, *COSTS}
    open_ended = any(names_itself(node.get("metric")) for node in benchmarks.values())
    for objective in objectives:
        part = any(objective.metric.startswith(f"{name}_") for name in benchmarks)
        if objective.metric not in known and not open_ended and not part and benchmarks:
            raise unknown_metric(objective.metric, known)


def unknown_metric(metric: str, known: Any) -> UserError:
    return UserError(f"{KEY}.objectives: no metric '{metric}'; {nearest(metric, known)}")


def make_sampler(node: Mapping[str, Any], space: Space, controller: int, num_trials: int) -> Any:
    """Optuna's sampler, or one's own.

    A ``seed`` is mixed with the controller's number and the trials that are there: a search that resumes does not
    repeat itself. A sampler that takes ``search_space`` gets all points of a finite space.

    Raises:
        UserError: an argument that it does not have, a grid over an interval.
    """
    from optuna.samplers import BaseSampler

    where = f"{KEY}.sampler"
    takes = inspect.signature(locate(str(node.get("_target_")), where, BaseSampler)).parameters
    facts: dict[str, Any] = {}
    if "seed" in takes:
        seed = (int(node.get("seed") or 0) * 1_000_003 + num_trials * 1009 + controller) % 2**32
        node = {**node, "seed": seed}
    if "search_space" in takes:
        facts["search_space"] = {dimension.name: _finite(dimension, where) for dimension in space.dimensions}
    return instantiate(node, where, expect=BaseSampler, **facts)


def make_pruner(node: Mapping[str, Any] | None) -> Any:
    """Optuna's pruner, or one's own; the one that never prunes where none is asked for."""
    from optuna.pruners import BasePruner, NopPruner

    return instantiate(node, f"{KEY}.pruner", expect=BasePruner) if node else NopPruner()


def _finite(dimension: Any, where: str) -> list[Any]:
    values = dimension.values()
    if values is None:
        raise UserError(f"{where}: a grid needs finitely many values, and {dimension.name} is an interval; use range()")
    return list(values)


def mean_of(objective: Objective, answers: Sequence[Measured]) -> float:
    """An objective's mean over seeds. Raises ``UserError`` when results have no such metric."""
    values = []
    for answer in answers:
        known = {**answer.costs, **answer.metrics}
        if objective.metric not in known:
            raise unknown_metric(objective.metric, known)
        values.append(known[objective.metric])
    return sum(values) / len(values)


def class_name(node: Mapping[str, Any]) -> str:
    """Of the class that a node's ``_target_`` names."""
    return str(node.get("_target_")).rpartition(".")[2]
