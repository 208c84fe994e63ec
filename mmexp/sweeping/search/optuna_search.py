"""A search by Optuna: points of a space, asked for as workers become free and told how they did.

``sweep.search`` is described in docs/sweeps.md. Keys with several values on the command line are further dimensions.
``sweep.rows`` are run first, are never pruned, and one of them may be the baseline. Several controllers may work on one
study: the same command again, while it runs.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmexp.errors import UserError, nearest
from mmexp.files import DONE, FAILED, KILLED, PRUNED
from mmexp.sweeping.search.optuna_points import CheckedPoint, Points
from mmexp.sweeping.search.optuna_record import best_of, told_trials
from mmexp.sweeping.search.optuna_schema import (
    KEY,
    TPE,
    Limit,
    Objective,
    Quantity,
    Validation,
    check_metrics,
    class_name,
    make_pruner,
    make_sampler,
    mean_of,
)
from mmexp.sweeping.search.optuna_storage import shown, storage_name
from mmexp.sweeping.search.optuna_study import (
    INFEASIBLE,
    REASON,
    SAME_AS,
    TRIAL_KEYS,
    Study,
    Suggestion,
    open_study,
    row_of,
)
from mmexp.sweeping.search.optuna_watch import Watch
from mmexp.sweeping.search.space import read_space
from mmexp.sweeping.search.strategy import Strategy
from mmexp.sweeping.spec.sweep import Sweep
from mmexp.sweeping.spec.table import Request, expand
from mmexp.sweeping.spec.trials import Measured, Trial, measured

MAX_INFEASIBLE = 100
MAX_KNOWN = 20
"""In a row, before a sampler counts as having nothing new to offer."""
LISTED = 64
"""Points of a space that a dry run or a plan shows all of."""
SHOWN = 5
"""First suggestions, where there are more."""
STATUSES = {"COMPLETE": DONE, "PRUNED": PRUNED, "FAIL": FAILED}
"""Optuna's states of trials that have ended -> ours."""
Keys = tuple[str, ...]


@dataclass
class RunningPoint:
    """A point that is being run, or a named row; whoever suggests the same meanwhile is told with it."""

    trials: list[Trial]
    """One for each seed."""
    suggestions: list[Suggestion]
    """None for a named row that nobody has suggested."""
    is_row: bool
    ended: dict[int, Measured] = field(default_factory=dict)
    """Seed -> how it ended."""
    verdict: str = ""
    """Why it is pruned."""

    @property
    def keys(self) -> Keys:
        return tuple(trial.key for trial in self.trials)


class OptunaSearch(Strategy):
    """One controller's part of a search.

    Args:
        n_trials: distinct points with a result, pruned or failed; those that are infeasible or known do not count.
        space: key -> list of values, or a text in Hydra's sweep syntax.
        sampler, pruner: ``_target_`` and arguments of any of Optuna's.
        objectives: what is searched for; ``sweep.metric`` where there is none.
        constraints: quantity -> bounds, known from shapes before anything is trained.
        validation: what a pruner sees.
        storage: ``journal`` or ``sqlite`` in the sweep's folder, a path of a journal file, or a database's URL.
        study: its name; by default that of the sweep.

    Raises:
        UserError: a name or number that cannot be.
    """

    uses = ("baseline", "rows")

    def __init__(
        self,
        *,
        sweep: Sweep,
        n_trials: int,
        space: dict[str, Any] | None = None,
        sampler: dict[str, Any] | None = None,
        objectives: list[Objective] | None = None,
        constraints: dict[Quantity, Limit] | None = None,
        pruner: dict[str, Any] | None = None,
        validation: Validation | None = None,
        storage: str = "journal",
        study: str | None = None,
    ) -> None:
        super().__init__(sweep=sweep)
        if n_trials < 1:
            raise UserError(f"{KEY}.n_trials: {n_trials} must be at least 1")
        self.n_trials, self.sampler, self.pruner = n_trials, sampler or TPE, pruner
        self.storage, self.study_name = storage, study
        self.objectives = tuple(objectives or self._objective_of_metric())
        if pruner and validation is None:
            raise UserError(f"{KEY}.validation: is missing; a pruner needs {{every_steps: 50, metric: NAME}}")
        if pruner and len(self.objectives) > 1:
            raise UserError(f"{KEY}.pruner: with several objectives there is no order to prune by; give one objective")
        self.space = read_space(space, list(sweep.line.ranges.values()), sweep.scale)
        self._check_line()
        check_metrics(self.objectives, sweep.base.resolved())
        make_sampler(self.sampler, self.space, 1, 0)
        make_pruner(pruner)
        storage_name(storage, sweep.folder)
        node, line = sweep.node, replace(sweep.line, axes={}, ranges={})
        if node.baseline is not None and node.baseline not in node.rows:
            raise UserError(f"sweep.baseline: no row '{node.baseline}'; {nearest(node.baseline, node.rows)}")
        self.rows = expand(node, line, blind=sweep.adds_blind) if node.rows else []
        self.points = Points(sweep, self.space, {str(name): limit for name, limit in (constraints or {}).items()})
        self.watch = Watch(sweep, validation) if pruner and validation else None
        self.study: Study | None = None
        self.running: dict[Keys, RunningPoint] = {}
        self.names: dict[Keys, str] = {}
        """Keys of a point's trials -> the row that has them."""
        self.found_rows: dict[str, dict[str, Any]] = {}
        self.statuses: dict[str, str] = {}
        """Key of a trial that has ended -> how."""
        self.ended_badly: set[Keys] = set()
        """In this run: not tried again in it."""

    @contextmanager
    def open(self) -> Iterator[Path]:
        """Check what can be checked; then one more controller of the study."""
        sweep = self.sweep
        sweep.check(sweep.freeze(self.rows))
        self.points.check_values()
        with open_study(self, f"{sweep.scale}/{sweep.line.name}") as study:
            self.study, folder = study, sweep.folder
            if study.number > 1:
                folder = folder / "controllers" / str(study.number)
                sweep.say(f"controller {study.number} of this study: {folder}")
            yield folder

    def first(self) -> Sequence[Request]:
        """Named rows, and the first points; those in the space are asked for too, so that the sampler knows them."""
        self.ended_elsewhere()
        if self.sweep.retry_failed:
            self.open_one.retry_failed()
        by_row: dict[str, list[Trial]] = {}
        for trial in self.sweep.freeze(self.rows):
            by_row.setdefault(trial.request.row, []).append(trial)
        for row, trials in by_row.items():
            point = RunningPoint(trials, [], is_row=True)
            self.running[point.keys] = point
            self.names[point.keys] = row
            values = self.space.point_of(self._own(trials[0].request))
            if values is not None:
                self.open_one.want(values)
        return [*self.rows, *self._fill()]

    def then(self, ended: Measured) -> Sequence[Request]:
        """Tell the study once all seeds of a point have ended, and fill the free place."""
        self.statuses[ended.trial.key] = ended.status
        point = self._point_of(ended.trial)
        if point is not None:
            point.ended[ended.trial.request.seed] = ended
            if len(point.ended) == len(point.trials):
                self._end(point)
        return self._fill()

    def stop(self, trial: Trial) -> str:
        point = self._point_of(trial)
        if point is None or point.is_row or self.watch is None:
            return ""
        if not point.verdict and trial.key == point.keys[0]:
            values = self.watch.values(trial)
            if values and self.open_one.report(point.suggestions[0], values):
                step = max(values)
                point.verdict = f"{self.watch.validation.metric} {values[step]:g} at step {step}"
        return point.verdict

    def ended_elsewhere(self) -> Sequence[tuple[Request, str, str]]:
        """Points of the study that earlier runs and other controllers ended.

        Raises:
            UserError: a point is another trial now, since its configs have changed.
        """
        ended = []
        for trial in self.open_one.trials():
            row, facts = row_of(trial.number), trial.user_attrs
            status = STATUSES.get(trial.state.name)
            if status is None or {INFEASIBLE, SAME_AS} & facts.keys() or TRIAL_KEYS not in facts:
                continue
            trials = self.points.freeze(row, trial.params)
            if [frozen.key for frozen in trials] != facts[TRIAL_KEYS]:
                raise UserError(
                    f"{KEY}: the configs behind study '{self.open_one.study.study_name}' have changed since its {row}, "
                    f"so its values no longer count; begin a new study with {KEY}.study=NAME"
                )
            if row not in self.found_rows:
                self._enter(trials)
                self.statuses |= {frozen.key: status for frozen in trials}
            ended += [(frozen.request, status, facts.get(REASON, "")) for frozen in trials]
        return ended

    def node(self) -> dict[str, Any]:
        """With points as rows, ranked by the first objective where the file names no metric."""
        rows = {**(self.sweep.raw.get("rows") or {}), **self.found_rows}
        metric = self.sweep.node.metric or self.objectives[0].metric
        return {**super().node(), "metric": metric, "rows": rows}

    def trace(self) -> dict[str, Any]:
        """The study as plain data."""
        found = {
            "kind": "optuna",
            "storage": shown(storage_name(self.storage, self.sweep.folder)),
            "sampler": class_name(self.sampler),
            "pruner": class_name(self.pruner) if self.pruner else None,
            "n_trials": self.n_trials,
            "size": self.space.size,
            "space": {dimension.name: str(dimension) for dimension in self.space.dimensions},
            "objectives": [{"metric": one.metric, "direction": one.direction} for one in self.objectives],
            "constraints": [limit.text(name) for name, limit in self.points.limits.items()],
        }
        trials = told_trials(self.open_one.trials())
        best = best_of(trials, [one.direction for one in self.objectives])
        return {**found, "study": self.open_one.study.study_name, "trials": trials, "best": best}

    def examples(self) -> Sequence[Request]:
        """Rows, and all points of a small space, else what the sampler suggests first; infeasible ones are said."""
        found = list(self.rows)
        for number, point in enumerate(self._first_points()):
            checked = self.points.check(row_of(number), point)
            if checked.reason:
                self.sweep.say(f"infeasible: {' '.join(self.space.overrides(point))}: {checked.reason}")
            found += [] if checked.reason else [trial.request for trial in checked.trials]
        return found

    def at_most(self) -> int:
        return self.n_trials * len(self.sweep.seeds) + len(self.rows)

    def describe(self, console: Console) -> None:
        """The space, its size, objectives, constraints, pruning and where the study lies."""
        self.points.check_values()
        table = Table(title="search space", title_justify="left")
        table.add_column("key")
        table.add_column("values")
        for dimension in self.space.dimensions:
            table.add_row(Text(dimension.name), Text(str(dimension)))
        console.print(table)
        size = "infinitely many" if self.space.size is None else str(self.space.size)
        lines = [f"{size} points; {class_name(self.sampler)}, {self.n_trials} trials"]
        lines += [f"{one.direction} {one.metric}" for one in self.objectives]
        lines += [f"subject to {limit.text(name)}" for name, limit in self.points.limits.items()]
        if self.pruner and self.watch:
            seen = self.watch.validation
            where = f"{seen.metric} of benchmark {seen.benchmark}, every {seen.every_steps} steps"
            lines.append(f"pruned ({class_name(self.pruner)}) by {where}")
        lines.append(f"study: {shown(storage_name(self.storage, self.sweep.folder))}")
        for line in lines:
            console.print(line, markup=False, soft_wrap=True)

    @property
    def open_one(self) -> Study:
        """The study; only while ``open``."""
        assert self.study is not None
        return self.study

    def _fill(self) -> list[Request]:
        """Trials of new points, until every worker has one."""
        added: list[Request] = []
        infeasible = known = 0
        while sum(not point.is_row for point in self.running.values()) < self.sweep.slots:
            suggestion = self.open_one.next()
            if suggestion is None:
                break
            checked = self.points.check(suggestion.row, suggestion.point)
            self.open_one.constrain(suggestion, checked.excess)
            if checked.reason:
                self.open_one.tell_infeasible(suggestion, checked.reason)
                infeasible += 1
            elif self._is_new(suggestion, checked):
                added += [trial.request for trial in checked.trials]
                infeasible = known = 0
            else:
                known += 1
            if infeasible >= MAX_INFEASIBLE or known >= MAX_KNOWN:
                kind = f"{infeasible} infeasible points" if infeasible >= MAX_INFEASIBLE else f"{known} known points"
                self.sweep.say(f"search: the sampler suggests nothing new ({kind} in a row)")
                break
        return added

    def _is_new(self, suggestion: Suggestion, checked: CheckedPoint) -> bool:
        """Whether a point must be run; what is known or being run already is not run again."""
        study, trials = self.open_one, checked.trials
        keys = tuple(trial.key for trial in trials)
        study.note(suggestion, TRIAL_KEYS, list(keys))
        running, same = self.running.get(keys), self.names.get(keys)
        before = {self.statuses.get(key, "") for key in keys}
        again = bool(before & {FAILED, KILLED}) and self.sweep.retry_failed and keys not in self.ended_badly
        if same not in (None, suggestion.row) and not again:
            study.note(suggestion, SAME_AS, same)
        else:
            self._enter(trials)
        if running is not None:
            running.suggestions.append(suggestion)
        elif all(self.sweep.store.find(key) for key in keys):
            ended = [measured(trial, DONE, "", self.sweep.store.find(trial.key)) for trial in trials]
            self._tell(suggestion, ended, "")
        elif PRUNED in before:
            study.tell_pruned(suggestion, f"as {same}")
        elif before & {FAILED, KILLED} and not again:
            study.tell_failed(suggestion, f"as {same}")
        else:
            if self.watch is not None:
                self.watch.arm(trials[0])
            self.running[keys] = RunningPoint(trials, [suggestion], is_row=False)
            return True
        return False

    def _enter(self, trials: Sequence[Trial]) -> None:
        """A point becomes a row of the sweep."""
        row = trials[0].request.row
        self.found_rows.setdefault(row, {"overrides": list(self._own(trials[0].request))})
        self.names.setdefault(tuple(trial.key for trial in trials), row)

    def _end(self, point: RunningPoint) -> None:
        del self.running[point.keys]
        if any(answer.status in (FAILED, KILLED) for answer in point.ended.values()):
            self.ended_badly.add(point.keys)
        for suggestion in point.suggestions:
            self._tell(suggestion, list(point.ended.values()), point.verdict)

    def _tell(self, suggestion: Suggestion, answers: Sequence[Measured], verdict: str) -> None:
        study, statuses = self.open_one, {answer.status for answer in answers}
        if self.watch is not None and answers:
            study.report(suggestion, self.watch.values(answers[0].trial))
        if statuses == {DONE}:
            values = [mean_of(objective, answers) for objective in self.objectives]
            if all(math.isfinite(value) for value in values):
                study.tell(suggestion, values)
            else:
                study.tell_failed(suggestion, "a metric of its result has no value")
        elif verdict:
            study.tell_pruned(suggestion, verdict)
        elif KILLED in statuses and FAILED not in statuses:
            return  # the trial stays in the study as running, and the next controller resumes it
        else:
            study.tell_failed(suggestion, next((one.reason for one in answers if one.status != DONE), ""))

    def _point_of(self, trial: Trial) -> RunningPoint | None:
        return next((point for point in self.running.values() if trial.key in point.keys), None)

    def _own(self, request: Request) -> tuple[str, ...]:
        """Overrides beside those of the command line."""
        return request.overrides[len(self.sweep.line.for_trials) :]

    def _first_points(self) -> Iterator[dict[str, Any]]:
        import optuna

        if self.space.size is not None and self.space.size <= LISTED:
            yield from self.space.points()
            return
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directions: Any = [one.direction for one in self.objectives]
        sampler = make_sampler(self.sampler, self.space, 1, 0)
        study = optuna.create_study(directions=directions, sampler=sampler)
        for _ in range(min(SHOWN, self.n_trials)):
            yield dict(study.ask(self.space.distributions()).params)

    def _objective_of_metric(self) -> list[Objective]:
        if self.sweep.node.metric is None:
            raise UserError(f"{KEY}.objectives: what is searched for? write [{{metric: NAME, direction: maximize}}]")
        return [Objective(metric=self.sweep.node.metric)]

    def _check_line(self) -> None:
        for dimension in self.space.dimensions:
            if dimension.name in self.sweep.line.keys:
                raise UserError(f"{dimension.name}: is a dimension of the search and set on the command line")
