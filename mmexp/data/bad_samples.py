"""Samples that cannot be used: the error that says so, how many a training run tolerates, and which it skipped."""

import json
from collections.abc import Iterable
from contextlib import suppress
from os import SEEK_END
from pathlib import Path
from typing import BinaryIO

from mmexp.errors import UserError


class BadSample(UserError):
    """The only error that is ever skipped: a broken record, image or tokenisation.

    Skipped while ``batching.max_bad_samples`` allows it, otherwise the run ends with it.

    Args:
        origin: ``file:line`` or ``file[index]``.
        reason: what is wrong with it.
    """

    def __init__(self, origin: str, reason: str) -> None:
        super().__init__(f"{origin}: {reason}")
        self.origin, self.reason = origin, reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.origin, self.reason)


class BadSampleBudget:
    """Counts bad samples of one process, each once, and writes them down.

    Args:
        limit: how many are skipped: a number, or below 1 a share of ``num_samples``.
        num_samples: of the mixture.
        report: JSON lines ``{"origin", "reason"}``; those that a killed run left there count too. None writes nothing.
    """

    def __init__(self, *, limit: float, num_samples: int, report: Path | None) -> None:
        self.limit = int(limit * num_samples) if limit < 1 else int(limit)
        self.report = report
        self.origins = _listed(report.read_text()) if report is not None and report.is_file() else set()

    def spend(self, bad: Iterable[BadSample]) -> None:
        """Raises ``UserError`` for the first sample beyond the limit."""
        for sample in bad:
            if sample.origin in self.origins:
                continue
            if len(self.origins) >= self.limit:
                raise self._exceeded(sample)
            self.origins.add(sample.origin)
            self._write(sample)

    def _exceeded(self, sample: BadSample) -> UserError:
        if self.limit == 0:
            return UserError(f"{sample} (batching.max_bad_samples would skip such samples)")
        listed = f", listed in {self.report}" if self.report else ""
        return UserError(
            f"more than batching.max_bad_samples = {self.limit} bad samples{listed}; the first one beyond: {sample}"
        )

    def _write(self, sample: BadSample) -> None:
        if self.report is None:
            return
        line = json.dumps({"origin": sample.origin, "reason": sample.reason}) + "\n"
        with self.report.open("a+b") as file:
            if file.tell() and not _ends_a_line(file):
                line = f"\n{line}"
            file.write(line.encode())


def _ends_a_line(file: BinaryIO) -> bool:
    file.seek(-1, SEEK_END)
    return file.read(1) == b"\n"


def _listed(text: str) -> set[str]:
    """Origins in a report; a line that a killed run did not finish is skipped."""
    origins = set()
    for line in text.splitlines():
        with suppress(ValueError):
            origins.add(json.loads(line)["origin"])
    return origins
