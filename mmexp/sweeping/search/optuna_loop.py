"""The search itself: points asked for as workers become free, run by the engine, told to the study."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmexp.errors import UserError
from mmexp.files import DONE, FAILED, KILLED, PRUNED, RESULT_FILE, read_json
from mmexp.stages.store import Store
from mmexp.sweeping.engine.control import Controller, Measured, numbers
from mmexp.sweeping.search.optuna_points import Points
from mmexp.sweeping.search.optuna_record import write_record
from mmexp.sweeping.search.optuna_settings import Objective, Settings, unknown_metric
from mmexp.sweeping.search.optuna_study import INFEASIBLE, REASON, SAME_AS, TRIAL_KEYS, Study, Suggestion, row_of
from mmexp.sweeping.search.optuna_watch import Watch
from mmexp.sweeping.session import Session
from mmexp.sweeping.spec.trials import Trial

MAX_INFEASIBLE = 100
MAX_KNOWN = 20
"""In a row, before a sampler counts as having nothing new to offer."""

Keys = tuple[str, ...]


@dataclass
class Flight:
    """A point that is being run, or a named row; whoever suggests the same meanwhile is told with it."""

    trials: list[Trial]
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

    @property
    def row(self) -> str:
        return self.trials[0].request.row


class Search:
    """One controller's part of a search.

    Args:
        session: the open sweep.
        settings: its node ``sweep.search``.
        points: makes trials.
        study: shared with other controllers.
        controller: runs trials; its ledger has the trials of the study as rows.
        watch: validation for pruning; None where there is no pruner.
        node: the config node ``sweep`` of the ledger, whose ``rows`` get the points.
    """

    def __init__(
        self,
        session: Session,
        settings: Settings,
        points: Points,
        study: Study,
        controller: Controller,
        watch: Watch | None,
        node: dict[str, Any],
    ) -> None:
        self.session, self.settings, self.points, self.study = session, settings, points, study
        self.controller, self.watch, self.node = controller, watch, node
        self.flights: dict[Keys, Flight] = {}
        self.rows: dict[Keys, str] = {}
        """Keys of a point's trials -> the row that has them."""
        self.ended_badly: set[Keys] = set()
        """In this run: not tried again in it."""
        self.slots = session.order.launcher.slots

    def run(self, rows: Sequence[Trial]) -> None:
        """Until the budget is used, or nothing new is suggested. ``rows``: named ones, which are run first.

        Raises:
            UserError: a result has no such metric, or the storage fails.
        """
        self.recall()
        if self.controller.retry_failed:
            self.study.retry_failed()
        first = [*self._named(rows), *self._fill()]
        while first:
            self.controller.run(first, self._then, self.judge if self.watch else None)
            for flight in list(self.flights.values()):  # finished elsewhere, so that nobody was told
                self._take(flight, [self.controller.measured(trial) for trial in flight.trials])
            first = self._fill()
        self.recall()
        self._record()

    def recall(self) -> None:
        """Enter what the study holds, from earlier runs and other controllers, as rows."""
        there = self.node["rows"]
        for trial in self.study.trials():
            row, facts = row_of(trial.number), trial.user_attrs
            if not trial.state.is_finished() or row in there or {INFEASIBLE, SAME_AS} & facts.keys():
                continue
            if TRIAL_KEYS not in facts:
                continue
            trials = self.points.freeze(row, trial.params)
            if [frozen.key for frozen in trials] != facts[TRIAL_KEYS]:
                raise UserError(
                    f"sweep.search: the configs behind study '{self.study.study.study_name}' have changed since its "
                    f"{row}, so its values no longer count; begin a new study with sweep.search.study=NAME"
                )
            self._enter(trials)
            status = {"PRUNED": PRUNED, "FAIL": FAILED}.get(trial.state.name)
            for frozen in trials:
                if status and self.controller.ledger.entry(frozen)["status"] != DONE:
                    self.controller.ledger.trial(frozen.key, status=status, reason=facts.get(REASON, ""))
        self.controller.ledger.save()

    def judge(self, task: Any) -> str | None:
        """For the engine: why a stage should be ended now, if all trials that wait for it are pruned."""
        verdicts = [self._verdict(trial) for trial in task.trials]
        return verdicts[0] if all(verdicts) else None

    def _verdict(self, trial: Trial) -> str:
        flight = self._flight_of(trial)
        if flight is None or flight.is_row or self.watch is None:
            return ""
        if not flight.verdict and trial.key == flight.keys[0]:
            values = self.watch.values(trial)
            if values and self.study.report(flight.suggestions[0], values):
                step = max(values)
                flight.verdict = f"{self.watch.pruner.metric} {values[step]:g} at step {step}"
        return flight.verdict

    def _named(self, rows: Sequence[Trial]) -> list[Trial]:
        """Named rows take off; those that lie in the space are also asked for, so that the sampler knows them."""
        by_row: dict[str, list[Trial]] = {}
        for trial in rows:
            by_row.setdefault(trial.request.row, []).append(trial)
        for trials in by_row.values():
            flight = Flight(trials, [], is_row=True)
            self.flights[flight.keys] = flight
            self.rows[flight.keys] = flight.row
            own = trials[0].request.overrides[len(self.session.line.for_trials) :]
            point = self.points.space.point_of(own)
            if point is not None:
                self.study.want(point)
        return list(rows)

    def _then(self, measured: Measured) -> Sequence[Trial]:
        """A trial has ended: tell the study once all its seeds have, and fill the free place."""
        flight = self._flight_of(measured.trial)
        if flight is not None:
            self._take(flight, [measured])
        return self._fill()

    def _flight_of(self, trial: Trial) -> Flight | None:
        return next((flight for flight in self.flights.values() if trial.key in flight.keys), None)

    def _take(self, flight: Flight, answers: Sequence[Measured]) -> None:
        flight.ended |= {answer.trial.request.seed: answer for answer in answers}
        if len(flight.ended) < len(flight.trials):
            return
        del self.flights[flight.keys]
        if any(answer.status in (FAILED, KILLED) for answer in flight.ended.values()):
            self.ended_badly.add(flight.keys)
        for suggestion in flight.suggestions:
            self._tell(suggestion, list(flight.ended.values()), flight.verdict)
        self._record()

    def _tell(self, suggestion: Suggestion, answers: Sequence[Measured], verdict: str) -> None:
        statuses = {answer.status for answer in answers}
        reason = next((answer.reason for answer in answers if answer.status != DONE), "")
        if self.watch is not None and answers:
            self.study.report(suggestion, self.watch.values(answers[0].trial))
        if statuses == {DONE}:
            values = [mean_of(objective, answers) for objective in self.settings.objectives]
            if all(math.isfinite(value) for value in values):
                self.study.tell(suggestion, values)
            else:
                self.study.tell_failed(suggestion, "a metric of its result has no value")
        elif verdict:
            self.study.tell_pruned(suggestion, verdict)
        elif KILLED in statuses and FAILED not in statuses:
            return  # the trial stays in the study as running, and the next controller goes on with it
        else:
            self.study.tell_failed(suggestion, reason)

    def _fill(self) -> list[Trial]:
        """Trials of new points, until every worker has one."""
        added: list[Trial] = []
        infeasible = known = 0
        while sum(not flight.is_row for flight in self.flights.values()) < self.slots:
            suggestion = self.study.next()
            if suggestion is None:
                break
            judged = self.points.judge(suggestion.row, suggestion.point)
            self.study.constrain(suggestion, judged.excess)
            if judged.reason:
                self.study.tell_infeasible(suggestion, judged.reason)
                infeasible += 1
            elif self._is_new(suggestion, judged.trials):
                added += judged.trials
                infeasible = known = 0
            else:
                known += 1
            if infeasible >= MAX_INFEASIBLE or known >= MAX_KNOWN:
                self._say_stuck(infeasible)
                break
        if added or infeasible or known:
            self._record()
        return added

    def _is_new(self, suggestion: Suggestion, trials: list[Trial]) -> bool:
        """Whether a point must be run; what is known or under way already is not run again."""
        self.study.note(suggestion, TRIAL_KEYS, [trial.key for trial in trials])
        keys = tuple(trial.key for trial in trials)
        flight, same = self.flights.get(keys), self.rows.get(keys)
        before = {self.controller.ledger.status(key) for key in keys}
        again = before & {FAILED, KILLED} and self.controller.retry_failed and keys not in self.ended_badly
        if same not in (None, suggestion.row) and not again:
            self.study.note(suggestion, SAME_AS, same)
        else:
            self._enter(trials)
        if flight is not None:
            flight.suggestions.append(suggestion)
            return False
        if all(self.session.store.find(key) for key in keys):
            self._tell(suggestion, [finished(trial, self.session.store) for trial in trials], "")
            return False
        if PRUNED in before:
            self.study.tell_pruned(suggestion, f"as {same}")
            return False
        if before & {FAILED, KILLED} and not again:
            self.study.tell_failed(suggestion, f"as {same}")
            return False
        if self.watch is not None:
            self.watch.arm(trials[0])
        self.flights[keys] = Flight(trials, [suggestion], is_row=False)
        return True

    def _enter(self, trials: Sequence[Trial]) -> None:
        """Trials of a point become cells of the ledger, and their row one of the sweep."""
        row = trials[0].request.row
        own = list(trials[0].request.overrides[len(self.session.line.for_trials) :])
        self.node["rows"].setdefault(row, {"overrides": own})
        self.rows.setdefault(tuple(trial.key for trial in trials), row)
        self.controller.ledger.enter(trials, self.session.store)

    def _say_stuck(self, infeasible: int) -> None:
        kind = f"{infeasible} infeasible points" if infeasible >= MAX_INFEASIBLE else f"{MAX_KNOWN} known points"
        self.session.events.print(f"search: the sampler suggests nothing new ({kind} in a row)", markup=False)

    def _record(self) -> None:
        study = self.study.study
        self.controller.ledger.search = {"kind": "optuna", "study": study.study_name}
        write_record(self.controller.ledger.folder, self.session, self.settings, self.points.space, self.study)


def finished(trial: Trial, store: Store) -> Measured:
    """The answer of a trial that is in the store, whoever made it."""
    folder = store.find(trial.key)
    result = (read_json(folder / RESULT_FILE) if folder else None) or {}
    return Measured(
        trial=trial, status=DONE, metrics=numbers(result.get("metrics")), costs=numbers(result.get("costs"))
    )


def mean_of(objective: Objective, answers: Sequence[Measured]) -> float:
    """An objective's mean over seeds. Raises ``UserError`` when results have no such metric."""
    values = []
    for answer in answers:
        known = {**answer.costs, **answer.metrics}
        if objective.metric not in known:
            raise unknown_metric(objective.metric, known)
        values.append(known[objective.metric])
    return sum(values) / len(values)
