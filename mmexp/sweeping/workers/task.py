"""The seam between engine and launchers: a frozen stage in a file, and a file that says how it went.

A launcher offers ``submit(work) -> handle``, ``poll(handle) -> Outcome | None`` and ``cancel(handle)``. Whatever it
does, a worker process reads the task file, makes the stage and writes the outcome file, and nobody else's files.
"""

import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from mmexp.errors import UserError
from mmexp.files import DONE, FAILED, read_json, write_json
from mmexp.stages.graph import StageSpec
from mmexp.stages.run import TrialContext, run_stage
from mmexp.stages.store import Store

LOG_TAIL_LINES = 20
LOG_TAIL_BYTES = 16_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a launcher gets: files and needs of one stage."""

    name: str
    key: str
    task_file: Path
    log_file: Path
    num_threads: int | None
    """None leaves thread counts alone."""
    wants_gpu: bool

    @property
    def outcome_file(self) -> Path:
        return self.task_file.with_suffix(".outcome.json")

    def outcome(self) -> "Outcome | None":
        """What the worker wrote, if it got that far."""
        value = read_json(self.outcome_file)
        return Outcome(**value) if value else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How work ended: ``done``, ``failed`` or ``killed``, and why."""

    status: str
    reason: str = ""


class Launcher(Protocol):
    """Runs work somewhere. ``slots``: how many pieces at a time."""

    slots: int
    keeps_code: bool
    """Work that starts later runs the code that was loaded when the sweep began, not files that were edited since."""

    def prepare(self, num_threads: int | None) -> None:
        """Work will come; get ready meanwhile."""

    def submit(self, work: Work) -> Any:
        """Start; returns a handle."""

    def poll(self, handle: Any) -> Outcome | None:
        """None while it runs."""

    def cancel(self, handle: Any) -> None:
        """End it and all its processes; returns when they are gone."""

    def close(self) -> None:
        """No more work comes."""


def write_task(folder: Path, spec: StageSpec, store: Store, context: TrialContext) -> Work:
    """Freeze a stage into ``<folder>/tasks``; from now on no edited YAML file changes it."""
    name = f"{spec.name}-{spec.key}"
    task = {
        "spec": spec.to_json(),
        "store": [str(folder) for folder in (store.stages, store.runs, *store.shipped)],
        "context": asdict(context),
    }
    path = folder / "tasks" / f"{name}.json"
    write_json(path, task)
    work = Work(
        name=spec.name,
        key=spec.key,
        task_file=path,
        log_file=folder / "logs" / f"{name}.log",
        num_threads=spec.node.get("num_threads"),
        wants_gpu=spec.runtime.get("accelerator", "cpu") != "cpu",
    )
    work.outcome_file.unlink(missing_ok=True)
    return work


def do_work(task_file: Path) -> Outcome:
    """Make the stage of a task file, here; nothing that it raises gets out, except an interrupt."""
    outcome = _outcome(read_json(task_file))
    write_json(task_file.with_suffix(".outcome.json"), asdict(outcome))
    return outcome


def log_tail(path: Path) -> str:
    """Last lines of a log, printable whatever was written."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - LOG_TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    clean = "".join(letter if letter.isprintable() or letter in "\n\t" else " " for letter in text.replace("\r", "\n"))
    lines = [line.rstrip() for line in clean.splitlines() if line.strip()]
    return "\n".join(lines[-LOG_TAIL_LINES:])


def _outcome(task: Mapping[str, Any]) -> Outcome:
    stages, runs, *shipped = (Path(path) for path in task["store"])
    store = Store(stages, runs, shipped)
    try:
        run_stage(StageSpec.from_json(task["spec"]), store, TrialContext(**task["context"]))
    except UserError as error:
        print(f"mmexp: error: {error}", file=sys.stderr)
        return Outcome(FAILED, str(error))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        traceback.print_exc()
        return Outcome(FAILED, f"{type(error).__name__}: {error}".splitlines()[0][:500])
    return Outcome(DONE)
