"""A kind of sweep: which trials are run, and which follow from their results.

``mmexp.sweeping.session`` opens a sweep, composes and checks what a strategy asks for, runs it, tells it how every
trial ended, writes down what it decided, and resumes after a kill. A strategy that makes the same decisions from the
same results needs no code for the last: it asks for the same trials again, and those that are finished (in any sweep:
a trial's folder is the hash of its config) are told at once. ``sweep.search._target_`` names the class.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from mmexp.errors import UserError, nearest
from mmexp.statistics.expression import check_names
from mmexp.sweeping.spec.schema import SweepNode
from mmexp.sweeping.spec.sweep import Sweep
from mmexp.sweeping.spec.table import Request
from mmexp.sweeping.spec.trials import Measured, Trial

CALLED_BY_ALL = ("title", "source", "note", "metric", "seeds", "findings", "search")
"""Keys of the node ``sweep`` that mean something to every kind."""


class Strategy(ABC):
    """Base of all kinds of sweep.

    Args:
        sweep: what the file and the command line say, and what makes trials of requests.

    Raises:
        UserError: the file has a key that this kind has no use for, or a mistake of the kind's own.
    """

    uses: Sequence[str] = ()
    """Keys of the node ``sweep`` that this kind reads, beside those that all do."""

    def __init__(self, *, sweep: Sweep) -> None:
        self.sweep = sweep
        known = (*CALLED_BY_ALL, *self.uses)
        for key, value in sweep.raw.items():
            if key in SweepNode.model_fields and key not in known and value not in (None, {}, []):
                kind = type(self).__name__
                raise UserError(f"sweep.{key}: {kind} has no use for it; {nearest(key, known)}")

    @abstractmethod
    def first(self) -> Sequence[Request]:
        """The trials that are run first. May be called only once, while ``open``."""

    def then(self, ended: Measured) -> Sequence[Request]:
        """Told of each trial once, when it has ended (also of those that were finished before); what follows from it.

        A request for a trial that was killed runs it again.
        """
        return ()

    def stop(self, trial: Trial) -> str:
        """Why a trial that is running or waiting should be ended now; empty to let it go on. Asked every second."""
        return ""

    def trace(self) -> dict[str, Any]:
        """What has been decided so far, in JSON, for the ledger and the report; ``kind`` names its form."""
        return {}

    def node(self) -> dict[str, Any]:
        """The node ``sweep`` as the report shall know it: with all rows that there are."""
        return {**self.sweep.raw, "seeds": list(self.sweep.seeds)}

    def examples(self) -> Sequence[Request]:
        """Trials that are known before any has run, for a dry run and a plan."""
        return self.first()

    def at_most(self) -> int | None:
        """How many trials the search can come to; None where the examples are all."""
        return None

    def describe(self, console: Console) -> None:
        """What a dry run shows before the examples; nothing for a table."""
        return None

    def ended_elsewhere(self) -> Sequence[tuple[Request, str, str]]:
        """(request, status, reason) of trials that other processes or earlier runs ended without a result."""
        return ()

    def check_findings(self, rows: Collection[str]) -> None:
        """The findings of the file compare rows that there can be. Raises ``UserError``: a line for each mistake."""
        lines = []
        for number, finding in enumerate(self.sweep.node.findings):
            try:
                check_names(finding.check, rows)
            except UserError as error:
                lines.append(f"sweep.findings[{number}]: {error}")
        if lines:
            raise UserError("\n".join(lines))

    @contextmanager
    def open(self) -> Iterator[Path]:
        """While open, trials are run; the folder of ledger, logs and report. Raises ``UserError``."""
        yield self.sweep.folder
