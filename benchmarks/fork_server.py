"""How long after its turn a task starts: forked from a process that has imported everything, or begun from nothing.

``python benchmarks/fork_server.py [TASKS]`` prints both medians and their ratio, from one run on one machine. A task's
start is when the worker writes its outcome: the task file is empty, so that it ends at its first look.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from mmexp.sweeping.workers.forkserver import HEAVY
from mmexp.sweeping.workers.local import LocalLauncher
from mmexp.sweeping.workers.task import Work

POLL_S = 0.005


def wait(launcher: LocalLauncher, folder: Path, number: int) -> float:
    """Seconds from handing a task over to its outcome; its modules are those of a real stage."""
    task = folder / f"task-{number}.json"
    task.write_text(json.dumps({"store": [str(folder), str(folder)], "spec": {}, "context": {}}))
    work = Work(
        name="probe",
        key=str(number),
        task_file=task,
        log_file=folder / f"{number}.log",
        num_threads=1,
        wants_gpu=False,
    )
    started = time.time()
    handle = launcher.submit(work)
    while launcher.poll(handle) is None:
        time.sleep(POLL_S)
    return work.outcome_file.stat().st_mtime - started


def measure(fork: bool, tasks: int) -> tuple[float, list[float]]:
    """Seconds of the first task, which waits for the imports of the server, and of the others."""
    launcher = LocalLauncher(n_jobs=1, timeout_s=None, fork=fork, preload=HEAVY)
    with tempfile.TemporaryDirectory() as folder:
        try:
            first, *others = [wait(launcher, Path(folder), number) for number in range(tasks + 1)]
        finally:
            launcher.close()
    return first, others


def imports_alone() -> float:
    """What a worker that begins from nothing has to import before it can train."""
    import subprocess

    started = time.monotonic()
    code = "import torch, lightning, transformers, timm, mmexp.training.stage, mmexp.evaluation.stage"
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.monotonic() - started


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    first, others = measure(True, number)
    forked = statistics.median(others)
    print(f"fork server: median {forked:.3f} s, slowest {max(others):.3f} s of {number}")
    print(f"its own start, once: {first:.1f} s")
    fresh = statistics.median(imports_alone() for _ in range(3))
    print(f"from nothing: median {fresh:.1f} s of 3; ratio {fresh / forked:.0f}")
