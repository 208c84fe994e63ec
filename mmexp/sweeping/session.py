"""A sweep while it is open: what every kind of sweep does around the choice of its trials.

A kind of sweep is a module with a function ``search(session)`` (``kinds.KINDS`` names them). It gets an open
``Session`` and does, in this order:

1. read ``session.node`` (the config node ``sweep``) and ``session.line`` (the command line), and refuse mistakes;
2. make the ``Request``s of its first trials and ``trials = session.freeze(requests)``: composed, resolved, keyed;
3. ``session.check(trials)``: everything that can be known to be wrong, of all trials in one list, nothing started;
4. for a dry run, ``session.preview(trials, at_most=...)``, and return;
5. ``with session.control(node) as controller:`` run batches, ``answers = controller.run(trials)``, look at
   ``answer.metrics``, note what it decided with ``controller.ledger.search = {...}`` and ``controller.ledger.save()``,
   and ``session.submit(requests)`` (freeze and check in one) to get the next trials, as often as it wants;
6. ``session.finish(controller)``: report, and an error that says which trials have no result.

Going on after a kill needs no code of its own: a kind that makes the same decisions from the same results asks for the
same trials again, and a trial that is finished (in any sweep: its directory is the hash of its config) is not run but
answered at once. What a kind cannot derive from results (a sampler's state) it must keep in the sweep's folder itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from mmexp.config import Composed, Composer
from mmexp.files import DONE, PRUNED
from mmexp.stages.store import Store
from mmexp.sweeping.engine.control import Controller, control
from mmexp.sweeping.engine.ledger import Head
from mmexp.sweeping.engine.preview import show_preview
from mmexp.sweeping.engine.scheduler import plan_tasks
from mmexp.sweeping.engine.work import Launcher
from mmexp.sweeping.spec.rows import CommandLine, Request, read_command_line
from mmexp.sweeping.spec.trials import Mistakes, Trial, Validator, freeze, validate_all

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
    launcher: Launcher
    """Where stages run; closed at the end."""
    dry_run: bool
    """Stop after validation and show what would be run."""
    retry_failed: bool
    """Run again what failed in an earlier run."""
    report: Report
    validate: Validator | None = None
    """Raises ``UserError`` for a config that cannot work; ``check_trial`` by default."""
    console: Console | None = None
    """Where to write; by default events go to stderr and tables to stdout."""


class Session:
    """An open sweep. Made by ``open_session``.

    Raises:
        UserError: the command line or the sweep's file cannot be read.
    """

    def __init__(self, order: Order) -> None:
        self.order = order
        self.line: CommandLine = read_command_line(order.arguments)
        with Composer(order.scale).open() as composer:
            self.base: Composed = composer.compose(self.line.plain)
            """The config that all trials differ from; interpolations are not resolved."""
        self.node = sweep_node(self.base)
        """The config node ``sweep``; empty for a plain multirun."""
        self.store = Store.from_config({"paths": paths_of(self.base)})
        self.folder = sweep_folder(paths_of(self.base), order.scale, self.line.name)
        self.events, self.tables = order.console or Console(stderr=True), order.console or Console()

    @property
    def dry_run(self) -> bool:
        return self.order.dry_run

    def freeze(self, requests: Sequence[Request]) -> list[Trial]:
        """Compose, resolve and key. Raises ``UserError``: all mistakes of all requests, each with its rows."""
        mistakes = Mistakes()
        with Composer(self.order.scale).open() as composer:
            trials = freeze(composer, requests, mistakes)
        mistakes.raise_if_any()
        return trials

    def check(self, trials: Sequence[Trial]) -> None:
        """Validate the trials that have no result, and get ready to run them.

        Raises:
            UserError: all mistakes of all trials, each with its rows.
        """
        from mmexp.sweeping.spec.check import check_trial

        tasks = plan_tasks(trials, self.store)
        if tasks and not self.dry_run:
            self.order.launcher.prepare(tasks[0].spec.node.get("num_threads"))
        mistakes = Mistakes()
        waiting = [trial for task in tasks for trial in task.trials]
        validate_all(waiting, self.order.validate or check_trial, mistakes)
        mistakes.raise_if_any()
        share_features(waiting)

    def submit(self, requests: Sequence[Request]) -> list[Trial]:
        """``freeze`` and ``check``: trials that can be run."""
        trials = self.freeze(requests)
        self.check(trials)
        return trials

    def preview(self, trials: Sequence[Trial], at_most: int | None = None) -> None:
        """Show trials and distinct stages; ``at_most``: how many trials a search may come to."""
        show_preview(trials, self.store, self.tables)
        if at_most is not None:
            self.tables.print(f"these come first; the whole search has at most {at_most} trials", markup=False)

    @contextmanager
    def control(self, node: dict[str, Any]) -> Iterator[Controller]:
        """Become the process that runs this sweep.

        Args:
            node: the config node ``sweep`` as the report shall know it; what is added to ``node["rows"]`` later is
                written with the ledger.

        Raises:
            UserError: another process runs this sweep, or its folder cannot be written.
        """
        order = self.order
        head = Head(name=self.line.name, scale=order.scale, sweep=node, command=tuple(order.arguments))
        with control(self.folder, head, self.store, order.launcher, order.retry_failed, self.events) as controller:
            yield controller

    def finish(self, controller: Controller) -> Path:
        """Report, then say what is missing. Returns the folder.

        Raises:
            MissingResultsError: trials of the table as it is now have no result.
        """
        ledger = controller.ledger
        selected = [entry for entry in ledger.trials if entry["selected"]]
        missing: dict[str, list[str]] = {}
        for entry in selected:
            if entry["status"] not in (DONE, PRUNED):
                reason = f"{entry['status']}: {entry['reason']}"
                missing.setdefault(reason, []).append(f"{entry['label']}/{entry['seed']}")
        if ledger.count(DONE):
            self.order.report(ledger.folder, self.tables)
        for reason, cells in missing.items():
            self.tables.print(f"no result: {', '.join(cells)}: {reason}", markup=False, soft_wrap=True)
        if missing:
            number = sum(map(len, missing.values()))
            raise MissingResultsError(
                f"{number} of {len(selected)} trials have no result; the same command goes on with those that were "
                "killed, with retry_failed=true also with those that failed"
            )
        return self.folder


@contextmanager
def open_session(order: Order) -> Iterator[Session]:
    """A sweep, open; its launcher is closed at the end, whatever happens."""
    try:
        yield Session(order)
    finally:
        order.launcher.close()


def sweep_node(base: Composed) -> dict[str, Any]:
    """The config node ``sweep`` as plain containers; overrides in it keep their interpolations."""
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(base.config.sweep, resolve=False) if base.config.get("sweep") else {}
    return found


def paths_of(base: Composed) -> dict[str, Any]:
    """The config node ``paths``, resolved."""
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(base.config.paths, resolve=True)
    return found


def share_features(trials: Sequence[Trial]) -> None:
    """Each frozen encoder runs once per image in the whole sweep: every stage is told the depths that all need."""
    from mmexp.planning.taps import share_taps

    distinct = {trial.key: trial for trial in trials if (trial.config.get("evaluation") or {}).get("model")}
    runtimes: list[list[Any]] = [[spec.runtime for spec in trial.graph.stages.values()] for trial in distinct.values()]
    share_taps([trial.config for trial in distinct.values()], runtimes)


def sweep_folder(paths: Mapping[str, Any], scale: str, name: str) -> Path:
    """Where a sweep's ledger, logs and report are."""
    return Path(paths["sweeps"]).absolute() / scale / name
