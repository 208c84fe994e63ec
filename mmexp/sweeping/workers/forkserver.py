"""Workers forked from a process that has imported everything: ``multiprocessing``'s fork server, started and watched.

``multiprocessing`` starts the server when it is first needed, again when it has died, and ends it with this process.
Its answers come through pipes of its own, so that nothing that a worker or an import prints can break them.
"""

import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from mmexp.stages.lock import start_of
from mmexp.sweeping.workers import preload
from mmexp.sweeping.workers.worker import work_forked

HEAVY = ("torch", "lightning", "transformers", "timm", "mmexp")
"""Packages that are imported before the first worker is forked; of mmexp every module."""
READY = "ready"
LOST = 255
"""Exit code that ``multiprocessing`` reports of a process whose server has died."""


SERVER: Any = forkserver._forkserver
"""The standard library's server; it has no public name for its process id, nor for ending it."""


class ForkServer:
    """A share of the one fork server of this process; whoever closes the last share ends it.

    Args:
        packages: imported by the server before the first fork.
        threads: variables for numbers of threads, which libraries read when they are loaded.
    """

    _change = threading.RLock()
    _shares = 0
    _folder: Path | None = None
    """Of the server that runs; it has the file ``ready`` once all is imported."""

    def __init__(self, packages: Sequence[str], threads: Mapping[str, str]) -> None:
        self.packages, self.threads = packages, threads
        with self._change:
            ForkServer._shares += 1
        self.ensure_running()

    def ensure_running(self) -> None:
        """Start the server where none is running; returns while it is still importing."""
        with self._change:
            if self.is_alive():
                return
            self._forget()
            folder = ForkServer._folder = Path(tempfile.mkdtemp(prefix="mmexp-fork-server-"))
            facts = {preload.PACKAGES: ",".join(self.packages), preload.READY_FILE: str(folder / READY)}
            safe = {"PYTHONSAFEPATH": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
            multiprocessing.get_context("forkserver").set_forkserver_preload([preload.__name__])
            with _environment({**self.threads, **safe, **facts}):
                forkserver.ensure_running()

    @property
    def pid(self) -> int | None:
        """None where no server runs."""
        found: int | None = SERVER._forkserver_pid
        return found

    def is_alive(self) -> bool:
        return self.pid is not None and bool(start_of(self.pid))

    def is_ready(self) -> bool:
        """Whether all is imported, so that a worker starts at once."""
        folder = self._folder
        return folder is not None and (folder / READY).exists() and self.is_alive()

    def close(self) -> None:
        """Give up a share; the last one ends the server, whatever it does."""
        with self._change:
            ForkServer._shares -= 1
            if self._shares > 0:
                return
            if self.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            SERVER._stop()
            self._forget()

    def _forget(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            ForkServer._folder = None


class Forked:
    """A worker that is forked as soon as the server is ready; ``lost`` when the server died and the worker with it."""

    def __init__(self, server: ForkServer, task_file: Path, log_file: Path, environment: Mapping[str, str]) -> None:
        self.server, self.lost, self._parent = server, False, 0
        self._process = multiprocessing.get_context("forkserver").Process(
            target=work_forked, args=(str(task_file), str(log_file), dict(environment))
        )

    @property
    def pid(self) -> int | None:
        """None until it has been forked."""
        return self._process.pid

    def code(self) -> int | None:
        """As of ``subprocess``: negative for a signal; None while it runs or waits for the server."""
        if self.pid is None:
            return self._begin()
        code = self._process.exitcode
        if code == LOST and not start_of(self._parent):
            if start_of(self.pid):
                return None  # it notices within its next look that its parent is gone
            self.lost = True
            return -signal.SIGKILL
        return code

    def _begin(self) -> int | None:
        if not self.server.is_ready():
            self.server.ensure_running()
            return None
        with suppress(EOFError, OSError):  # the server died just now
            self._parent = self.server.pid or 0
            self._process.start()
            return None
        self.lost = True
        return -signal.SIGKILL


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables for a process that is started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
