"""Launcher ``local``: worker processes on this machine, each the leader of its own process group."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mmexp.errors import UserError
from mmexp.sweeping.work import FAILED, KILLED, Outcome, Work

GRACE_S = 5.0
"""Between asking a worker to end and killing it."""
PARENT = "MMEXP_CONTROLLER"
"""Environment variable: process id of the controller; a worker ends when it is gone."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass
class Handle:
    """A running worker."""

    work: Work
    process: subprocess.Popen[bytes]
    slot: int
    started: float


class LocalLauncher:
    """``n_jobs`` workers at a time.

    Args:
        n_jobs: workers, at least 1. GPUs are dealt out evenly; a worker sees only its own.
        timeout_s: limit for one stage or evaluation; None for none.
    """

    def __init__(self, *, n_jobs: int, timeout_s: float | None) -> None:
        if n_jobs < 1:
            raise UserError(f"hydra.launcher.n_jobs: {n_jobs} workers cannot work; give at least 1")
        self.slots, self.timeout_s = n_jobs, timeout_s
        self._free = list(range(n_jobs))

    def submit(self, work: Work) -> Handle:
        slot = self._free.pop(0)
        work.log_file.parent.mkdir(parents=True, exist_ok=True)
        with work.log_file.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "mmexp.worker", str(work.task_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(work, slot),
                start_new_session=True,
            )
        return Handle(work, process, slot, time.monotonic())

    def poll(self, handle: Handle) -> Outcome | None:
        code = handle.process.poll()
        if code is None:
            if self.timeout_s is None or time.monotonic() - handle.started <= self.timeout_s:
                return None
            self.cancel(handle)
            return handle.work.outcome() or Outcome(FAILED, f"ran past its time limit of {self.timeout_s:g} s")
        self._end_group(handle, signal.SIGKILL)
        self._free.append(handle.slot)
        return handle.work.outcome() or _without_outcome(code)

    def cancel(self, handle: Handle) -> None:
        self._end_group(handle, signal.SIGTERM)
        try:
            handle.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            pass
        self._end_group(handle, signal.SIGKILL)
        handle.process.wait()
        self._free.append(handle.slot)

    def _environment(self, work: Work, slot: int) -> dict[str, str]:
        environment = {**os.environ, PARENT: str(os.getpid()), "PYTHONUNBUFFERED": "1"}
        if work.num_threads is not None:
            environment |= dict.fromkeys(THREAD_VARIABLES, str(work.num_threads))
        if work.wants_gpu and (gpus := visible_gpus()):
            own = gpus[slot :: self.slots] or [gpus[slot % len(gpus)]]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
        return environment

    @staticmethod
    def _end_group(handle: Handle, number: signal.Signals) -> None:
        """Workers may have started processes of their own (data loaders)."""
        try:
            os.killpg(handle.process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, asked without importing torch."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name]
    devices = Path("/dev").glob("nvidia[0-9]*")
    return [str(number) for number in range(len(list(devices)))]


def _without_outcome(code: int) -> Outcome:
    if code >= 0:
        return Outcome(FAILED, f"the worker ended with exit code {code} and said nothing")
    name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
    hint = " (often: out of memory)" if -code == signal.SIGKILL else ""
    return Outcome(KILLED, f"the worker was killed by {name}{hint}")
