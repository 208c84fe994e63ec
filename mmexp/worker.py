"""``python -m mmexp.worker TASK_FILE``: make one frozen stage, then end.

Ends its whole process group when the process that started it is gone: nothing goes on unseen.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from mmexp.sweeping.work import DONE, do_work

WATCH_S = 0.5
PARENT = "MMEXP_CONTROLLER"
"""Environment variable: process id of the controller; a worker ends when it is gone."""


def work(task_file: Path, parent: int | None) -> int:
    """Exit code 0 when the stage is finished, 1 otherwise; the outcome file says why."""
    if parent is not None:
        threading.Thread(target=end_with, args=(parent,), name="parent watch", daemon=True).start()
    return 0 if do_work(task_file).status == DONE else 1


def end_with(parent: int) -> None:
    """Kill this process and its children once ``parent`` is not the parent any more."""
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    controller = os.environ.pop(PARENT, None)
    sys.exit(work(Path(sys.argv[1]), int(controller) if controller else None))
