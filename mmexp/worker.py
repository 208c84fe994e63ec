"""``python -m mmexp.worker TASK_FILE``: make one frozen stage, then end.

Ends its whole process group when the process that started it is gone: nothing goes on unseen.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from mmexp.sweeping.local import PARENT
from mmexp.sweeping.work import DONE, do_work

WATCH_S = 0.5


def main() -> None:
    """Exit code 0 when the stage is finished, 1 otherwise; the outcome file says why."""
    parent = os.environ.pop(PARENT, None)
    if parent is not None:
        threading.Thread(target=end_with, args=(int(parent),), name="controller watch", daemon=True).start()
    sys.exit(0 if do_work(Path(sys.argv[1])).status == DONE else 1)


def end_with(parent: int) -> None:
    """Kill this process and its children once ``parent`` is not the parent any more."""
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
