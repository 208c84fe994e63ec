"""The one process that runs a sweep: it alone writes the ledger."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from mmexp.errors import UserError
from mmexp.files import DONE, LOCKS_FOLDER
from mmexp.stages.lock import Claim, Watch, try_claim
from mmexp.stages.store import Store
from mmexp.sweeping.engine.display import Display
from mmexp.sweeping.engine.ledger import Head, Ledger
from mmexp.sweeping.engine.preview import say_shared
from mmexp.sweeping.engine.scheduler import Engine, Stop
from mmexp.sweeping.spec.trials import Measured, Trial, measured
from mmexp.sweeping.workers.task import Launcher

Then = Callable[[Measured], Sequence[Trial]]
"""Told of each trial that has ended; returns further trials."""


class Controller:
    """Runs trials under one ledger. Made by ``control``."""

    def __init__(self, ledger: Ledger, store: Store, launcher: Launcher, retry_failed: bool, console: Console) -> None:
        self.ledger, self.store, self.launcher, self.console = ledger, store, launcher, console
        self.retry_failed = retry_failed

    def run(self, trials: Sequence[Trial], then: Then | None = None, stop: Stop | None = None) -> None:
        """Enter trials in the ledger and run them as far as they can be run; what is finished is not run again.

        Args:
            then: told of each trial once; the trials that it returns are run too.
            stop: says of a trial that has not ended why it should end now; it is then pruned.

        Raises:
            UserError: the folder or the store cannot be written.
            KeyboardInterrupt: with all workers ended and the ledger written.
        """
        self.ledger.enter(trials, self.store)
        say_shared([trial for trial in trials if trial.request.selected], self.console)

        def follow(trial: Trial) -> Sequence[Trial]:
            found = then(self.measured(trial)) if then else ()
            self.ledger.enter(found, self.store)
            return found

        display = Display(self.console)
        try:
            Engine(trials, self.store, self.launcher, self.ledger, display, self.retry_failed, follow, stop).run()
        except OSError as error:
            where = error.filename or self.ledger.folder
            raise UserError(f"{where}: {error.strerror}; the same command resumes from here") from None

    def note_end(self, trial: Trial, status: str, reason: str) -> None:
        """Enter a trial that was ended elsewhere, in another process or an earlier run."""
        self.ledger.enter([trial], self.store)
        if status != DONE and self.ledger.entry(trial)["status"] != DONE:
            self.ledger.trial(trial.key, status=status, reason=reason)

    def measured(self, trial: Trial) -> Measured:
        """What is known of a trial that has been entered."""
        entry = self.ledger.entry(trial)
        return measured(trial, entry["status"], entry["reason"], Path(entry["folder"]) if entry["folder"] else None)


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
        lock = try_claim(folder / LOCKS_FOLDER, "controller", Watch())
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another paths.root") from None
    if not isinstance(lock, Claim):
        raise UserError(f"this sweep is being run by {lock}; wait for it, or end it first")
    try:
        yield
    finally:
        lock.release(finished=False)
