"""A process that has imported everything and run nothing: a worker forked from it starts at once.

Importing torch, lightning, transformers and timm takes seconds, for every stage of a sweep. The server imports them
once, has one thread and has run no operation (asserted before each fork), and each worker is a fresh process all the
same. Modules that are loaded keep their code: edits while a sweep runs do not reach later workers.

``ForkServer`` is the controller's side. The server reads a line of JSON per worker from its standard input, answers
with lines on its standard output, and ends its workers and itself when the input ends, that is, when the controller
is gone.
"""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mmexp.stages.lock import start_of

HEAVY = ("torch", "lightning", "transformers", "timm", "mmexp")
"""Packages that are imported before the first worker is forked; of mmexp every module."""
WAIT_S = 0.02


class Worker:
    """A worker that was asked for; ``pid`` is None until the server has forked it."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.code: int | None = None
        """As of ``subprocess``: negative for a signal; None while it runs."""


class ForkServer:
    """The controller's side.

    Args:
        preload: packages.
        threads: variables for numbers of threads, which libraries read when they are loaded.
    """

    def __init__(self, preload: Sequence[str], threads: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mmexp.sweeping.workers.forkserver", *preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **threads, "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._workers: list[Worker] = []
        self._unread = b""

    def start(self, task_file: Path, log_file: Path, environment: Mapping[str, str], modules: Sequence[str]) -> Worker:
        """Ask for a worker; it starts as soon as the server has its modules."""
        request = {"task": str(task_file), "log": str(log_file), "environment": dict(environment), "modules": modules}
        worker = Worker()
        self._workers.append(worker)
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        return worker

    def look(self) -> bool:
        """Take in the server's answers; False when it is dead and so are all its workers."""
        assert self.process.stdout is not None
        while chunk := self.process.stdout.read():
            self._unread += chunk
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            answer = json.loads(line)
            worker = self._workers[answer["number"]]
            worker.pid = answer.get("pid", worker.pid)
            worker.code = answer.get("code", worker.code)
        if self.process.poll() is None:
            return True
        return any(worker.code is None and worker.pid and start_of(worker.pid) for worker in self._workers)

    def close(self) -> None:
        """End the server; its workers have ended."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def serve(preload: Sequence[str]) -> None:
    """The server's loop, until its input ends."""
    for package in preload:
        load(package)
    running: dict[int, int] = {}
    number, unread = 0, b""
    while True:
        ready, _, _ = select.select([0], [], [], WAIT_S)
        if ready:
            chunk = os.read(0, 1 << 16)
            if not chunk:
                end_all(running)
                return
            *lines, unread = (unread + chunk).split(b"\n")
            for line in lines:
                request = json.loads(line)
                for module in request["modules"]:
                    load(module)
                gc.freeze()  # a collection in a worker would copy every page that it shares with the server
                pid = fork()
                if pid == 0:
                    become_worker(request)
                running[pid] = number
                answer(number=number, pid=pid)
                number += 1
        collect(running)


def load(module: str) -> None:
    """Import a module; of mmexp every one. What cannot be imported is the worker's to complain about."""
    with contextlib.suppress(Exception):
        package = importlib.import_module(module)
        if module == "mmexp":
            for found in pkgutil.walk_packages(package.__path__, "mmexp."):
                if not found.name.endswith("__main__"):
                    load(found.name)


def fork() -> int:
    threads = Path("/proc/self/task")
    assert not threads.is_dir() or len(list(threads.iterdir())) == 1, "the fork server must have one thread"
    return os.fork()


def become_worker(request: Mapping[str, Any]) -> NoReturn:
    """After the fork: own session, own log, own environment; then the work."""
    from mmexp.sweeping.workers.worker import work

    parent = os.getppid()
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.update(request["environment"])
    work(Path(request["task"]), parent)


def collect(running: dict[int, int]) -> None:
    """Tell the ends of workers."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        if pid in running:
            answer(number=running.pop(pid), code=os.waitstatus_to_exitcode(status))


def end_all(running: Mapping[int, int]) -> None:
    for pid in running:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def answer(**facts: int) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(facts).encode() + b"\n")


if __name__ == "__main__":
    serve(sys.argv[1:])
    os._exit(0)
