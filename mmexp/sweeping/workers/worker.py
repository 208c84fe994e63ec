"""``python -P -m mmexp.sweeping.workers.worker TASK_FILE``: make one frozen stage, then end.

Ends its whole process group when the process that started it is gone: nothing goes on unseen.
"""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from mmexp.files import DONE
from mmexp.instantiate import see_working_directory
from mmexp.sweeping.workers.task import do_work

WATCH_S = 0.5
PARENT = "MMEXP_CONTROLLER"
"""Environment variable: process id of the controller; a worker ends when it is gone."""


def work(task_file: Path, parent: int | None) -> NoReturn:
    """Make the stage and end this process: exit code 0 when it is finished, else 1; the outcome file says why.

    Exit handlers are run, but modules are not torn down: with torch loaded that takes seconds, and copies every page
    that a forked worker shares.
    """
    if parent is not None:
        threading.Thread(target=end_with, args=(parent,), name="parent watch", daemon=True).start()
    see_working_directory()
    code = 0 if do_work(task_file).status == DONE else 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def work_forked(task_file: str, log_file: str, environment: Mapping[str, str]) -> NoReturn:
    """In a process that a fork server has just forked: own session, own log, own environment; then the work."""
    parent = os.getppid()
    os.setsid()
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    os.environ.update(environment)
    work(Path(task_file), parent)


def end_with(parent: int) -> None:
    """Kill this process and its children once ``parent`` is not the parent any more."""
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    controller = os.environ.pop(PARENT, None)
    work(Path(sys.argv[1]), int(controller) if controller else None)
