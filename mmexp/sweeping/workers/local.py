"""Launcher ``local``: worker processes on this machine, each the leader of its own process group."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmexp.errors import UserError
from mmexp.files import FAILED, KILLED
from mmexp.sweeping.workers.forkserver import HEAVY, Forked, ForkServer
from mmexp.sweeping.workers.task import Outcome, Work
from mmexp.sweeping.workers.worker import PARENT

GRACE_S = 5.0
"""Between asking a worker to end and killing it."""
LOOK_S = 0.02
MAX_STARTS = 3
"""A worker whose fork server dies is started again so often."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class Spawned:
    """A worker that is a process of its own from the start."""

    def __init__(self, work: Work, environment: dict[str, str]) -> None:
        with work.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "mmexp.sweeping.workers.worker", str(work.task_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment, PARENT: str(os.getpid()), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        self.pid: int | None = self._process.pid
        self.lost = False

    def code(self) -> int | None:
        return self._process.poll()


@dataclass
class Handle:
    """Work that has a slot."""

    work: Work
    process: Spawned | Forked
    slot: int
    started: float
    starts: int = 1


class LocalLauncher:
    """``n_jobs`` workers at a time.

    Args:
        n_jobs: workers, at least 1. GPUs are dealt out evenly; a worker sees only its own.
        timeout_s: limit for one stage or evaluation; None for none.
        fork: start workers from a fork server, so that they need not import for seconds; else each from nothing.
        preload: packages that the fork server imports first.
    """

    def __init__(self, *, n_jobs: int, timeout_s: float | None, fork: bool, preload: Sequence[str] = HEAVY) -> None:
        if n_jobs < 1:
            raise UserError(f"hydra.launcher.n_jobs: {n_jobs} workers cannot work; give at least 1")
        self.slots, self.timeout_s, self.fork, self.preload = n_jobs, timeout_s, fork, tuple(preload)
        self.keeps_code = fork
        self._free = list(range(n_jobs))
        self._server: ForkServer | None = None

    def prepare(self, num_threads: int | None) -> None:
        if self.fork and self._server is None:
            self._server = ForkServer(self.preload, _threads(num_threads))

    def submit(self, work: Work) -> Handle:
        slot = self._free.pop(0)
        work.log_file.parent.mkdir(parents=True, exist_ok=True)
        return Handle(work, self._start(work, slot), slot, time.monotonic())

    def poll(self, handle: Handle) -> Outcome | None:
        code = handle.process.code()
        if code is None:
            if self.timeout_s is None or time.monotonic() - handle.started <= self.timeout_s:
                return None
            self.cancel(handle)
            return handle.work.outcome() or Outcome(FAILED, f"ran past its time limit of {self.timeout_s:g} s")
        outcome = handle.work.outcome()
        if outcome is None and handle.process.lost and handle.starts < MAX_STARTS:
            handle.process, handle.starts = self._start(handle.work, handle.slot), handle.starts + 1
            return None
        _end_group(handle, signal.SIGKILL)
        self._free.append(handle.slot)
        return outcome or _without_outcome(code)

    def cancel(self, handle: Handle) -> None:
        deadline, asked = time.monotonic() + GRACE_S, False
        while handle.process.code() is None:
            if handle.process.pid is None:
                break  # it waits for the server and has begun nothing
            if time.monotonic() >= deadline:
                _end_group(handle, signal.SIGKILL)
            elif not asked:
                asked = _end_group(handle, signal.SIGTERM)
            time.sleep(LOOK_S)
        _end_group(handle, signal.SIGKILL)
        self._free.append(handle.slot)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _start(self, work: Work, slot: int) -> Spawned | Forked:
        environment = self._environment(work, slot)
        if not self.fork:
            return Spawned(work, environment)
        if self._server is not None and self._server.pid is not None and not self._server.is_alive():
            self.keeps_code = False  # the next server loads the files as they are now
        self.prepare(work.num_threads)
        assert self._server is not None
        self._server.ensure_running()
        return Forked(self._server, work.task_file, work.log_file, environment)

    def _environment(self, work: Work, slot: int) -> dict[str, str]:
        """Variables that a worker has beyond those of the controller."""
        environment = _threads(work.num_threads)
        if work.wants_gpu and (gpus := visible_gpus()):
            own = gpus[slot :: self.slots] or [gpus[slot % len(gpus)]]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
        return environment


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, asked without importing torch."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name]
    devices = Path("/dev").glob("nvidia[0-9]*")
    return [str(number) for number in range(len(list(devices)))]


def _threads(number: int | None) -> dict[str, str]:
    return {} if number is None else dict.fromkeys(THREAD_VARIABLES, str(number))


def _end_group(handle: Handle, number: signal.Signals) -> bool:
    """Signal a worker and the processes that it may have started (data loaders). False where there is nobody."""
    if handle.process.pid is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(handle.process.pid, number)
            return True
    return False


def _without_outcome(code: int) -> Outcome:
    if code >= 0:
        return Outcome(FAILED, f"the worker ended with exit code {code} and said nothing")
    name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
    hint = " (often: out of memory)" if -code == signal.SIGKILL else ""
    return Outcome(KILLED, f"the worker was killed by {name}{hint}")
