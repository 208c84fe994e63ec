"""A sweep from its command to its report: open, compose, check, run, tell, finish; the same for every kind of sweep."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from mmexp.config import options
from mmexp.config.schema import typed_arguments
from mmexp.errors import UserError
from mmexp.files import DONE, PRUNED
from mmexp.instantiate import allow_prefixes, instantiate, locate
from mmexp.stages.explain import earlier_line
from mmexp.stages.run import missing_stages
from mmexp.sweeping.engine.control import Controller, control
from mmexp.sweeping.engine.ledger import Head, Ledger
from mmexp.sweeping.engine.preview import show_preview
from mmexp.sweeping.search.strategy import Strategy
from mmexp.sweeping.search.table import Table
from mmexp.sweeping.spec.sweep import Sweep, Validator, open_sweep
from mmexp.sweeping.spec.table import Request
from mmexp.sweeping.spec.trials import Measured, Trial
from mmexp.sweeping.workers.task import Launcher

LAUNCHER = "hydra.launcher"
Report = Callable[[Path, Console], None]
"""Shows what a sweep's folder holds."""


class MissingResultsError(RuntimeError):
    """The sweep ran to its end, but not every trial has a result."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a user asked for, and what it is done with."""

    scale: str
    arguments: Sequence[str]
    """Overrides; ``sweeps=NAME`` chooses the sweep."""
    report: Report
    launcher: Launcher | None = None
    """Where stages run, closed at the end; that of ``hydra/launcher`` where there is none."""
    dry_run: bool = False
    """Stop after the check and show what would be run."""
    retry_failed: bool = False
    """Run again what failed in an earlier run."""
    validate: Validator | None = None
    """Raises ``UserError`` for a config that cannot work; ``check_trial`` by default."""
    console: Console | None = None
    """Where to write; by default events go to stderr and tables to stdout."""


def run_sweep(order: Order) -> Path | None:
    """Run a sweep, or resume it.

    Returns:
        The sweep's folder; None for a dry run.

    Raises:
        UserError: mistakes, all of them in one list; nothing has been started.
        MissingResultsError: at the end, trials without a result.
    """
    from mmexp.planning.check import check_trial

    events = order.console or Console(stderr=True)
    with open_sweep(order.scale, order.arguments, order.validate or check_trial, events) as sweep:
        sweep.retry_failed = order.retry_failed
        strategy = strategy_of(sweep)
        launcher = order.launcher or launcher_of(sweep)
        if order.dry_run:
            preview(strategy, order.console or Console())
            return None
        try:
            sweep.slots = launcher.slots
            launcher.prepare(sweep.num_threads())
            return _run(order, strategy, launcher, events)
        finally:
            launcher.close()


def strategy_of(sweep: Sweep) -> Strategy:
    """The kind of sweep that ``sweep.search._target_`` names; a table where there is none. Raises ``UserError``."""
    node, where = sweep.search_node(), "sweep.search"
    if sweep.node.search is None:
        return Table(sweep=sweep)
    if "_target_" not in node:
        raise UserError(f"{where}: has no _target_, such as mmexp.sweeping.search.round_robin.RoundRobin")
    allow_prefixes(sweep.base.config.get("allow_targets"))
    typed = typed_arguments(locate(str(node["_target_"]), where, Strategy), node, where)
    strategy: Strategy = instantiate({**node, **typed}, where, expect=Strategy, sweep=sweep)
    return strategy


def launcher_of(sweep: Sweep) -> Launcher:
    """What ``hydra/launcher`` chooses. Raises ``UserError``."""
    node = sweep.base.launcher
    if str(node["_target_"]).startswith("hydra."):
        there = ", ".join(options("hydra/launcher", sweep.scale))
        raise UserError(f"{LAUNCHER}: {node['_target_']} cannot run frozen stages; choose from: {there}")
    typed = typed_arguments(locate(str(node["_target_"]), LAUNCHER, Launcher), node, LAUNCHER)
    launcher: Launcher = instantiate({**node, **typed}, LAUNCHER, expect=Launcher)
    return launcher


def known_trials(scale: str, arguments: Sequence[str]) -> tuple[dict[str, Any], list[Trial]]:
    """The node ``sweep`` and the trials that are known before anything has run. Raises ``UserError``."""
    with open_sweep(scale, arguments, lambda config: None, Console(stderr=True)) as sweep:
        strategy = strategy_of(sweep)
        return strategy.node(), sweep.freeze(strategy.examples())


def preview(strategy: Strategy, tables: Console) -> None:
    """Check what is known, and show trials and distinct stages. Raises ``UserError``."""
    sweep = strategy.sweep
    strategy.describe(tables)
    trials = sweep.freeze(strategy.examples())
    sweep.check([trial for trial in trials if trial.request.selected])
    show_preview(trials, sweep.store, tables)
    if (number := strategy.at_most()) is not None:
        tables.print(f"these come first; the whole search has at most {number} trials", markup=False)


def _run(order: Order, strategy: Strategy, launcher: Launcher, events: Console) -> Path:
    sweep = strategy.sweep
    with strategy.open() as folder:
        first = _submit(sweep, strategy.first())
        _say_earlier(sweep, first)
        head = Head(name=sweep.line.name, scale=sweep.scale, sweep=strategy.node(), command=tuple(order.arguments))
        with control(folder, head, sweep.store, launcher, order.retry_failed, events) as controller:

            def then(ended: Measured) -> list[Trial]:
                trials = _submit(sweep, strategy.then(ended))
                controller.ledger.describe(strategy.node(), strategy.trace())
                return trials

            _note_ended(controller, strategy)
            controller.run(first, then, strategy.stop)
            _note_ended(controller, strategy)
        finish(controller.ledger, order.report, order.console or Console())
    return folder


def _submit(sweep: Sweep, requests: Sequence[Request]) -> list[Trial]:
    """Trials that can be run: frozen, and checked where they have no result. Raises ``UserError``: all mistakes."""
    trials = sweep.freeze(requests)
    waiting = [trial for trial in trials if trial.request.selected and sweep.store.find(trial.key) is None]
    sweep.check(waiting)
    share_features(waiting)
    return trials


def _say_earlier(sweep: Sweep, trials: Sequence[Trial]) -> None:
    """Stages that an earlier version of mmexp made are not made anew without a word."""
    missing = [name for trial in trials for name in missing_stages(trial.graph, sweep.store)]
    if line := earlier_line(dict.fromkeys(missing), sweep.store):
        sweep.say(line)


def _note_ended(controller: Controller, strategy: Strategy) -> None:
    """What others have ended is entered, and what has been decided is written down."""
    for request, status, reason in strategy.ended_elsewhere():
        for trial in strategy.sweep.freeze([request]):
            controller.note_end(trial, status, reason)
    controller.ledger.describe(strategy.node(), strategy.trace())
    controller.ledger.save()


def finish(ledger: Ledger, report: Report, tables: Console) -> None:
    """Report, then say what is missing.

    Raises:
        MissingResultsError: trials of the table as it is now have no result.
    """
    selected = [entry for entry in ledger.trials if entry["selected"]]
    missing: dict[str, list[str]] = {}
    for entry in selected:
        if entry["status"] not in (DONE, PRUNED):
            reason = f"{entry['status']}: {entry['reason']}"
            missing.setdefault(reason, []).append(f"{entry['label']}/{entry['seed']}")
    if ledger.count(DONE):
        report(ledger.folder, tables)
    for reason, cells in missing.items():
        tables.print(f"no result: {', '.join(cells)}: {reason}", markup=False, soft_wrap=True)
    if missing:
        number = sum(map(len, missing.values()))
        raise MissingResultsError(
            f"{number} of {len(selected)} trials have no result; the same command resumes those that were killed, "
            "with retry_failed=true also those that failed"
        )


def share_features(trials: Sequence[Trial]) -> None:
    """Each frozen encoder runs once per image in the whole sweep: every stage is told the depths that all need."""
    from mmexp.planning.taps import share_taps

    distinct = {trial.key: trial for trial in trials if (trial.config.get("evaluation") or {}).get("model")}
    runtimes: list[list[Any]] = [[spec.runtime for spec in trial.graph.stages.values()] for trial in distinct.values()]
    share_taps([trial.config for trial in distinct.values()], runtimes)
