"""The config node ``sweep.search`` of kind ``optuna``, read strictly."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from mmexp.errors import UserError, nearest
from mmexp.evaluation.metrics import names_itself

KEY = "sweep.search"
KIND = "optuna"
SAMPLERS = ("grid", "nsga2", "random", "tpe")
PRUNERS = ("halving", "hyperband", "median", "percentile")
DIRECTIONS = ("maximize", "minimize")
COSTS = ("visual_tokens", "parameters", "seconds", "training_seconds", "evaluation_seconds", "seconds_per_question")
"""Of a result's ``costs``: they can be objectives beside metrics."""
LIMITED = ("connector_parameters", "parameters", "trained_parameters", "visual_tokens")
"""Known from shapes before anything is trained."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    metric: str
    """Of a result's metrics, aggregates or costs; its mean over seeds."""
    direction: str = "maximize"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampler:
    kind: str = "tpe"
    seed: int = 0
    startup_trials: int = 10
    """tpe: drawn at random first."""
    population: int = 20
    """nsga2: trials of a generation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """A point outside is infeasible and never trained."""

    quantity: str
    min: float | None = None
    max: float | None = None

    def excess(self, value: float) -> float:
        """How far outside, relative to the limit; 0 or less is inside (Optuna's convention)."""
        over = [value - self.max] if self.max is not None else []
        over += [self.min - value] if self.min is not None else []
        scale = max(abs(self.max or 0), abs(self.min or 0), 1)
        return max(over) / scale

    def __str__(self) -> str:
        low = f"{self.min:g} <= " if self.min is not None else ""
        return f"{low}{self.quantity}{f' <= {self.max:g}' if self.max is not None else ''}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruner:
    """The first seed's last training stage is validated while it runs; a trial that looks bad is ended."""

    kind: str
    every_steps: int
    metric: str
    """Of ``benchmark``, or an aggregate of it."""
    benchmark: str = "val"
    """Option of the group ``benchmark``: not what is reported in the end."""
    startup_trials: int = 5
    """median, percentile: trials that are finished before any is pruned."""
    warmup_steps: int = 0
    percentile: float = 50.0
    """percentile: a trial outside the best so many percent is pruned."""
    reduction: int = 3
    """halving, hyperband: one in so many goes on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What ``sweep.search`` says, apart from its space."""

    n_trials: int
    """Distinct points with a result, pruned or failed; points that are infeasible or known already are not counted."""
    objectives: tuple[Objective, ...]
    sampler: Sampler
    constraints: tuple[Limit, ...]
    pruner: Pruner | None
    storage: str
    """``journal`` or ``sqlite`` in the sweep's folder, a path of a journal file, or a database's URL."""
    study: str | None
    """Name; None: after the sweep."""


SEARCH_KEYS = ("kind", "space", *(field.name for field in fields(Settings)))


def read_settings(node: Mapping[str, Any], metric: str | None) -> Settings:
    """Read ``sweep.search``.

    Args:
        metric: ``sweep.metric``: the objective where none is given.

    Raises:
        UserError: an unknown key or name, a number that cannot be.
    """
    _check_keys(node, SEARCH_KEYS, KEY)
    n_trials = node.get("n_trials")
    if type(n_trials) is not int or n_trials < 1:
        raise UserError(f"{KEY}.n_trials: a whole number of trials from 1 on is needed, not {n_trials}")
    objectives = _objectives(node.get("objectives"), metric)
    pruner = _read(Pruner, node["pruner"], f"{KEY}.pruner") if node.get("pruner") else None
    settings = Settings(
        n_trials=n_trials,
        objectives=objectives,
        sampler=_read(Sampler, _named(node.get("sampler", "tpe")), f"{KEY}.sampler"),
        constraints=tuple(_limits(node.get("constraints") or {})),
        pruner=pruner,
        storage=str(node.get("storage", "journal")),
        study=node.get("study"),
    )
    _check_choice(settings.sampler.kind, SAMPLERS, f"{KEY}.sampler.kind")
    if pruner is not None:
        _check_pruner(pruner, objectives)
    return settings


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


def _objectives(value: Any, metric: str | None) -> tuple[Objective, ...]:
    if not value and metric is None:
        raise UserError(f"{KEY}.objectives: what is searched for? write [{{metric: NAME, direction: maximize}}]")
    if value is not None and (not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value)):
        raise UserError(f"{KEY}.objectives: write [{{metric: NAME, direction: maximize}}, ...]")
    found = tuple(_read(Objective, item, f"{KEY}.objectives") for item in value or [{"metric": metric}])
    for objective in found:
        _check_choice(objective.direction, DIRECTIONS, f"{KEY}.objectives.direction")
    return found


def _limits(node: Any) -> list[Limit]:
    where = f"{KEY}.constraints"
    if not isinstance(node, Mapping):
        raise UserError(f"{where}: write {{visual_tokens: {{max: 144}}}}")
    limits = []
    for quantity, value in node.items():
        _check_choice(str(quantity), LIMITED, where)
        if not isinstance(value, Mapping) or not value or not all(isinstance(v, int | float) for v in value.values()):
            raise UserError(f"{where}.{quantity}: write {{max: NUMBER}}, {{min: NUMBER}} or both")
        _check_keys(value, ("min", "max"), f"{where}.{quantity}")
        limits.append(Limit(quantity=str(quantity), **value))
    return limits


def _check_pruner(pruner: Pruner, objectives: Sequence[Objective]) -> None:
    _check_choice(pruner.kind, PRUNERS, f"{KEY}.pruner.kind")
    if len(objectives) > 1:
        raise UserError(f"{KEY}.pruner: with several objectives there is no order to prune by; give one, or no pruner")
    if pruner.every_steps < 1:
        raise UserError(f"{KEY}.pruner.every_steps: at least 1, not {pruner.every_steps}")


def _named(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


def _read(kind: Any, node: Any, where: str) -> Any:
    """A dataclass from a mapping: known keys, all that are needed, values of the right type."""
    if not isinstance(node, Mapping):
        raise UserError(f"{where}: a mapping is needed, not {node}")
    names = {field.name: field for field in fields(kind)}
    _check_keys(node, names, where)
    for name, field in names.items():
        if name not in node and field.default is MISSING:
            raise UserError(f"{where}.{name}: is missing")
    for name, value in node.items():
        wanted = {"int": (int,), "float": (int, float), "str": (str,)}[
            str(getattr(names[name].type, "__name__", names[name].type))
        ]
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise UserError(f"{where}.{name}: {value!r} is no {wanted[-1].__name__}")
    return kind(**node)


def _check_keys(node: Mapping[str, Any], known: Any, where: str) -> None:
    for key in node:
        if key not in known:
            raise UserError(f"{where}.{key}: no such key; {nearest(str(key), known)}")


def _check_choice(value: str, known: Sequence[str], where: str) -> None:
    if value not in known:
        raise UserError(f"{where}: no '{value}'; {nearest(value, known)}")
