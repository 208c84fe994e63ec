"""Runs the stages of a sweep's trials: each distinct one once, shared ones first, one seed after the other."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmexp.files import BLOCKED, DONE, FAILED, KILLED, PENDING, PRUNED, RUNNING
from mmexp.stages.graph import StageSpec
from mmexp.stages.run import missing_stages
from mmexp.stages.store import Store
from mmexp.sweeping.engine.code_watch import CodeWatch
from mmexp.sweeping.engine.display import Display, RowScores
from mmexp.sweeping.engine.ledger import Ledger
from mmexp.sweeping.spec.trials import Place, Trial
from mmexp.sweeping.workers.task import Launcher, Outcome, log_tail, write_task

POLL_S = 0.1
LOOK_S = 1.0
"""Between looks at progress files and at stages that other processes make."""


@dataclass(eq=False)
class Task:
    """One distinct stage and the trials that wait for it; the first of them is named in its logs."""

    spec: StageSpec
    trials: list[Trial]
    order: tuple[int, ...]
    status: str = PENDING
    reason: str = ""
    log: Path | None = None
    handle: Any = None
    started: float = 0.0
    waits_for: str = ""
    """The living process elsewhere that makes it now."""
    progress: tuple[int, int] | None = field(default=None)

    @property
    def is_last(self) -> bool:
        """Whether its trials end with it."""
        return any(trial.key == self.spec.key for trial in self.trials)

    @property
    def label(self) -> str:
        first = self.trials[0].request
        others = f" (+{len(self.trials) - 1} more)" if len(self.trials) > 1 else ""
        if self.spec.name == first.row:  # a stage that is made for itself
            return self.spec.name
        return f"{self.spec.name} of {first.label}, seed {first.seed}{others}"


Follow = Callable[[Trial], Sequence[Trial]]
"""Told of each trial that has ended; returns further trials, which are in the ledger."""
Stop = Callable[[Trial], str]
"""Why a trial that has not ended should end now, though nothing is wrong with it; empty to let it go on."""
ENDED = (DONE, FAILED, KILLED, PRUNED)


def plan_tasks(trials: Sequence[Trial], store: Store) -> list[Task]:
    """Stages that unfinished, selected trials lack, in the order in which they are started when they can be.

    First seeds before later ones; within a seed what most work waits for first (shared early stages, then late ones,
    evaluations last); then in the order of the rows.
    """
    tasks: dict[str, Task] = {}
    seeds = list(dict.fromkeys(trial.request.seed for trial in trials))
    for row, trial in enumerate(trials):
        if not trial.request.selected:
            continue
        missing = missing_stages(trial.graph, store)
        for name in missing:
            spec = trial.graph.stages[name]
            order = (seeds.index(trial.request.seed), -_height(name, trial, missing), row)
            task = tasks.setdefault(spec.key, Task(spec, [], order))
            task.trials.append(trial)
            task.order = min(task.order, order)
    return sorted(tasks.values(), key=lambda task: task.order)


def _height(name: str, trial: Trial, missing: Sequence[str]) -> int:
    """Length of the longest chain of missing stages from this one to the end."""
    children = [child for child in missing if name in trial.graph.stages[child].parents]
    return 1 + max((_height(child, trial, missing) for child in children), default=0)


class Engine:
    """One run of a sweep.

    Args:
        trials: in the ledger.
        store: where stages and trials are finished.
        launcher: starts work.
        ledger: begun with the sweep's trials.
        display: told what happens.
        retry_failed: try again what failed in an earlier run.
        follow: told of each trial once, also of those that were finished before.
        stop: asked every second about trials that have not ended; what it ends is pruned, not failed.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        store: Store,
        launcher: Launcher,
        ledger: Ledger,
        display: Display,
        retry_failed: bool,
        follow: Follow,
        stop: Stop | None,
    ) -> None:
        self.store, self.launcher, self.ledger, self.display = store, launcher, ledger, display
        self.retry_failed, self.follow, self.stop = retry_failed, follow, stop
        self.tasks = {task.spec.key: task for task in plan_tasks(trials, store)}
        self.scores, self.code = RowScores(ledger), CodeWatch()
        self._waiting = {trial.place: trial for trial in trials if trial.request.selected}
        """Trials whose end has not been told yet."""
        self._told: set[Place] = set()
        self._news = True
        """Whether a trial may have ended since ``follow`` was last asked."""
        self._looked = 0.0

    def run(self) -> None:
        """Until nothing can be done any more. On an interrupt all work is ended and can be continued."""
        self._remember_failures()
        self.ledger.save()
        with self.display, ending_signals():
            try:
                while self._take_more() or any(task.status in (PENDING, RUNNING) for task in self.tasks.values()):
                    self._step()
            except BaseException:
                self._cancel_all()
                raise
        self.ledger.save()

    def _step(self) -> None:
        changed = False
        for task in self._with_status(RUNNING):
            outcome = self.launcher.poll(task.handle)
            if outcome is not None:
                self._end(task, outcome)
                changed = True
        look = time.monotonic() - self._looked >= LOOK_S
        if changed or look:
            self._looked = time.monotonic()
            self._look_elsewhere()
            self._look_at_code()
            self._prune()
        started = self._start_ready()
        if changed or started:
            self.ledger.save()
        if changed or started or look:
            self._show()
        if not started:
            time.sleep(POLL_S)

    def _take_more(self) -> bool:
        """Tell of the trials that have ended since; take in those that follow from them. False: nothing follows."""
        if not self._news:
            return False
        self._news = False
        ended = [trial for trial in self._waiting.values() if self.ledger.entry(trial)["status"] in ENDED]
        for trial in ended:
            self._told.add(trial.place)
            del self._waiting[trial.place]
        added = [new for trial in ended for new in self.follow(trial)]
        fresh = [trial for trial in added if self._is_fresh(trial)]
        self._waiting |= {trial.place: trial for trial in fresh}
        self._news = any(self.ledger.entry(trial)["status"] in ENDED for trial in fresh)
        for task in plan_tasks(fresh, self.store):
            self._add(task)
        if fresh:
            self._remember_failures()
        return bool(fresh)

    def _is_fresh(self, trial: Trial) -> bool:
        """Whether a trial is new here, or was killed and is asked for again."""
        if self.ledger.entry(trial)["status"] == KILLED:
            self.ledger.trial(trial.key, status=PENDING, reason="", log_tail="")
            for spec in trial.graph.stages.values():
                if (task := self.tasks.get(spec.key)) and task.status == KILLED:
                    task.status = PENDING
            return True
        return trial.place not in self._told and trial.place not in self._waiting

    def _add(self, task: Task) -> None:
        """Take a stage in; where it is known, its trials wait for it too, or share its failure."""
        known = self.tasks.setdefault(task.spec.key, task)
        if known is task:
            return
        known.trials += [trial for trial in task.trials if trial not in known.trials]
        if known.status in (FAILED, KILLED, PRUNED):
            for trial in task.trials:
                self._give_up(trial, known, "")

    def _start_ready(self) -> bool:
        started = False
        for task in self._with_status(PENDING):
            if len(self._with_status(RUNNING)) >= self.launcher.slots:
                break
            if not task.waits_for and self._parents_done(task):
                self._start(task)
                started = True
        return started

    def _start(self, task: Task) -> None:
        context = task.trials[0].context(self.ledger.head.name)
        work = write_task(self.ledger.folder, task.spec, self.store, context)
        task.log, task.started, task.status = work.log_file, time.monotonic(), RUNNING
        self.ledger.stage(task.spec.key, name=task.spec.name, status=RUNNING, reason="", log=str(work.log_file))
        for trial in task.trials:
            self.ledger.trial(trial.key, status=RUNNING)
        self.display.event(f"{task.label}: started")
        task.handle = self.launcher.submit(work)

    def _end(self, task: Task, outcome: Outcome) -> None:
        if outcome.status == DONE and self.store.find(task.spec.key) is None:
            outcome = Outcome(FAILED, "the worker said it was done, but there is no result")
        if outcome.status == DONE:
            self._done(task, f"done in {time.monotonic() - task.started:.0f} s")
        else:
            self._failed(task, outcome.status, outcome.reason, log_tail(task.log) if task.log else "")

    def _done(self, task: Task, text: str) -> None:
        task.status = DONE
        seconds = self.store.record(task.spec.key).get("seconds")
        self.ledger.stage(task.spec.key, name=task.spec.name, status=DONE, reason="", seconds=seconds)
        score = ""
        if task.is_last:
            folder = self.store.find(task.spec.key)
            self.ledger.trial(task.spec.key, status=DONE, reason="", log_tail="", folder=str(folder))
            self._news = True
            score = self.scores.text(task.spec.key)
        self.display.event(f"{task.label}: {text}{f'; {score}' if score else ''}")

    def _failed(self, task: Task, status: str, reason: str, tail: str) -> None:
        task.status, task.reason = status, reason
        self.ledger.stage(task.spec.key, name=task.spec.name, status=status, reason=reason, log_tail=tail)
        self.display.event(f"{task.label}: {status}: {reason}" + (f"; log: {task.log}" if task.log else ""))
        for trial in task.trials:
            self._give_up(trial, task, tail)

    def _give_up(self, trial: Trial, cause: Task, tail: str) -> None:
        """A trial loses a stage: what only it waits for is not made."""
        reason = cause.reason if cause.is_last else f"stage {cause.spec.name}: {cause.reason}"
        self.ledger.trial(trial.key, status=cause.status, reason=reason, log_tail=tail)
        self._news = True
        for spec in trial.graph.stages.values():
            task = self.tasks.get(spec.key)
            if task and task.status == PENDING and self._lacks(task, cause):
                task.status, task.reason = cause.status, reason
                self.ledger.stage(spec.key, name=spec.name, status=BLOCKED, reason=reason)

    def _lacks(self, task: Task, cause: Task) -> bool:
        """Whether a stage needs ``cause``, directly or not, or only serves trials that do."""
        if cause.spec.key in task.spec.parents.values():
            return True
        parents = (self.tasks.get(key) for key in task.spec.parents.values())
        if any(parent is not None and self._lacks(parent, cause) for parent in parents):
            return True
        return all(any(spec.key == cause.spec.key for spec in trial.graph.stages.values()) for trial in task.trials)

    def _remember_failures(self) -> None:
        """What failed before stays failed, with its reason, until it is asked for again."""
        for task in list(self.tasks.values()):
            failure = None if self.retry_failed else self.ledger.failure(task.spec.key)
            if failure and task.status == PENDING:
                reason = f"{failure['reason']} (in an earlier run; retry_failed=true runs it again)"
                task.status, task.reason = FAILED, failure["reason"]
                self.display.event(f"{task.label}: failed: {reason}")
                for trial in task.trials:
                    self._give_up(trial, task, failure.get("log_tail", ""))

    def _look_elsewhere(self) -> None:
        """Other sweeps and runs on the same store: use what they finished, wait for what they make."""
        for task in self._with_status(PENDING):
            if self.store.find(task.spec.key) is not None:
                self._done(task, "made by another process")
                continue
            owner = self.store.owner(task.spec) if self._parents_done(task) else None
            waits_for = str(owner) if owner else ""
            if waits_for and waits_for != task.waits_for:
                self.display.event(f"{task.label}: waiting for {waits_for}, which is making it")
            task.waits_for = waits_for
        for task in self._with_status(RUNNING):
            task.progress = self.store.progress(task.spec)

    def _prune(self) -> None:
        """End stages all of whose trials should end."""
        for task in [*self._with_status(RUNNING), *self._with_status(PENDING)] if self.stop else []:
            reasons = [self.stop(trial) for trial in task.trials] if self.stop else []
            if all(reasons) and task.status in (RUNNING, PENDING):
                if task.status == RUNNING:
                    self.launcher.cancel(task.handle)
                self._failed(task, PRUNED, reasons[0], "")

    def _look_at_code(self) -> None:
        """Say what an edit of the code means for the stages that are still to come."""
        path = self.code.first_edit()
        if path is not None:
            keeps = "use the code that was loaded" if self.launcher.keeps_code else "run the edited code"
            self.display.event(f"{path} was edited: stages that start from now on {keeps}")

    def _parents_done(self, task: Task) -> bool:
        parents = (self.tasks.get(key) for key in task.spec.parents.values())
        return all(parent is None or parent.status == DONE for parent in parents)

    def _with_status(self, status: str) -> list[Task]:
        return [task for task in self.tasks.values() if task.status == status]

    def _show(self) -> None:
        running = [(task.label, task.progress, time.monotonic() - task.started) for task in self._with_status(RUNNING)]
        done = sum(task.status == DONE for task in self.tasks.values())
        failed = self.ledger.count(FAILED, KILLED)
        trials = (self.ledger.count(DONE), len(self.ledger.trials))
        rows = self.scores.rows() if self.display.is_live else ()
        self.display.show(running, done, len(self.tasks), *trials, failed, self.scores.metric, rows)

    def _cancel_all(self) -> None:
        for task in self._with_status(RUNNING):
            if task.handle is not None:
                self.launcher.cancel(task.handle)
            task.status = KILLED
            self.ledger.stage(task.spec.key, status=KILLED, reason="interrupted")
        for entry in self.ledger.trials:
            if entry["status"] == RUNNING:
                entry["status"] = PENDING
        self.ledger.save()


@contextmanager
def ending_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end a sweep as Ctrl-C does: with its workers ended and its ledger written."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGTERM, signal.SIGHUP]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
