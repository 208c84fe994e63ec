"""The one process that runs a sweep: it alone writes the ledger, batch after batch of trials."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from mmexp.errors import UserError
from mmexp.files import DONE, LOCKS_FOLDER, RESULT_FILE, read_json
from mmexp.stages.lock import Claim, Watch, try_claim
from mmexp.stages.store import Store
from mmexp.sweeping.engine.display import Display
from mmexp.sweeping.engine.ledger import Head, Ledger
from mmexp.sweeping.engine.preview import say_shared
from mmexp.sweeping.engine.scheduler import Engine, Judge, plan_tasks
from mmexp.sweeping.engine.work import Launcher
from mmexp.sweeping.spec.trials import Trial


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A trial and how it ended."""

    trial: Trial
    status: str
    """``done``, ``failed``, ``killed``, ``pruned``; ``not selected`` for one that was not asked for."""
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Those of its result that have a value; empty unless it is done."""
    costs: Mapping[str, float] = field(default_factory=dict)


Then = Callable[[Measured], Sequence[Trial]]
"""Told of each trial that ends; returns further trials, which are run in the same batch."""


class Controller:
    """Runs batches under one ledger. Made by ``control``."""

    def __init__(self, ledger: Ledger, store: Store, launcher: Launcher, retry_failed: bool, console: Console) -> None:
        self.ledger, self.store, self.launcher, self.console = ledger, store, launcher, console
        self.retry_failed = retry_failed

    def run(self, trials: Sequence[Trial], then: Then | None = None, judge: Judge | None = None) -> list[Measured]:
        """Enter trials in the ledger and run them as far as they can be run; what is finished is not run again.

        Args:
            judge: says of a stage that is not finished why it should be ended now; its trials are then pruned.

        Returns:
            One answer for each trial, in their order; those that ``then`` added come after them.

        Raises:
            UserError: the folder or the store cannot be written.
            KeyboardInterrupt: with all workers ended and the ledger written.
        """
        entered = [*trials]
        self.ledger.enter(trials, self.store)
        say_shared([trial for trial in trials if trial.request.selected], self.console)

        def more(trial: Trial) -> Sequence[Trial]:
            found = then(self.measured(trial)) if then else ()
            self.ledger.enter(found, self.store)
            entered.extend(found)
            return found

        tasks = plan_tasks(trials, self.store)
        display = Display(self.console)
        try:
            Engine(tasks, self.store, self.launcher, self.ledger, display, self.retry_failed, more, judge).run()
        except OSError as error:
            where = error.filename or self.ledger.folder
            raise UserError(f"{where}: {error.strerror}; the same command goes on from here") from None
        return [self.measured(trial) for trial in entered]

    def measured(self, trial: Trial) -> Measured:
        """What is known of a trial that has been entered."""
        entry = self.ledger.entry(trial)
        result = (read_json(Path(entry["folder"]) / RESULT_FILE) if entry["status"] == DONE else None) or {}
        return Measured(
            trial=trial,
            status=entry["status"],
            reason=entry["reason"],
            metrics=numbers(result.get("metrics")),
            costs=numbers(result.get("costs")),
        )


@contextmanager
def control(
    folder: Path, head: Head, store: Store, launcher: Launcher, retry_failed: bool, console: Console
) -> Iterator[Controller]:
    """The right to run a sweep, with its ledger, which forgets nothing of earlier runs.

    Raises:
        UserError: another process runs this sweep, or its folder cannot be written, or its ledger not be read.
    """
    with one_controller(folder):
        yield Controller(Ledger(folder, head), store, launcher, retry_failed, console)


@contextmanager
def one_controller(folder: Path) -> Iterator[None]:
    """The right to write a sweep's ledger. Raises ``UserError`` while another process has it."""
    try:
        claim = try_claim(folder / LOCKS_FOLDER, "controller", Watch())
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another paths.root") from None
    if not isinstance(claim, Claim):
        raise UserError(f"this sweep is being run by {claim}; wait for it, or end it first")
    try:
        yield
    finally:
        claim.release(finished=False)


def numbers(values: Mapping[str, object] | None) -> dict[str, float]:
    return {name: float(value) for name, value in (values or {}).items() if isinstance(value, int | float)}
