import os
import time
from pathlib import Path

import pytest

from mmexp.sweeping.engine.work import Work, log_tail, target_modules
from mmexp.sweeping.workers import local
from mmexp.sweeping.workers.forkserver import ForkServer
from mmexp.sweeping.workers.local import LocalLauncher, visible_gpus


def launcher(n_jobs: int) -> LocalLauncher:
    return LocalLauncher(n_jobs=n_jobs, timeout_s=None, fork=False)


def work(tmp_path: Path, **changes) -> Work:
    facts = {"num_threads": None, "wants_gpu": False, "modules": (), **changes}
    return Work(name="s", key="k", task_file=tmp_path / "task.json", log_file=tmp_path / "log", **facts)


@pytest.mark.parametrize(
    ("n_jobs", "gpus", "expected"),
    [
        (2, "0,1", ["0", "1"]),
        (2, "0,1,2,3", ["0,2", "1,3"]),
        (3, "5", ["5", "5", "5"]),
        (2, "", [None, None]),
    ],
)
def test_gpus_are_dealt_out(tmp_path, monkeypatch, n_jobs, gpus, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    found = [launcher(n_jobs)._environment(work(tmp_path, wants_gpu=True), slot) for slot in range(n_jobs)]
    assert [environment.get("CUDA_VISIBLE_DEVICES") for environment in found] == expected


def test_without_a_wish_gpus_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert launcher(2)._environment(work(tmp_path), 0) == {}


def test_gpus_of_a_machine_are_counted_by_their_devices(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(local.Path, "glob", lambda self, pattern: [Path("/dev/nvidia0"), Path("/dev/nvidia1")])
    assert visible_gpus() == ["0", "1"]


def test_threads_are_those_of_the_stage(tmp_path):
    environment = launcher(1)._environment(work(tmp_path, num_threads=3), 0)
    assert environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == "3"


def test_cancelling_work_that_has_not_started_ends_at_once(tmp_path):
    slow = tmp_path / "slow_module.py"
    slow.write_text("import time; time.sleep(60)")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    os.environ.update(environment)
    try:
        forking = LocalLauncher(n_jobs=1, timeout_s=None, fork=True, preload=("slow_module",))
        handle = forking.submit(work(tmp_path))
        started = time.monotonic()
        forking.cancel(handle)
        assert time.monotonic() - started < 2
        forking.close()
    finally:
        del os.environ["PYTHONPATH"]


def test_the_fork_server_ends_with_its_controller(tmp_path):
    server = ForkServer((), {})
    server.process.stdin.close()
    assert server.process.wait(10) == 0
    server.process.stdout.close()


@pytest.mark.slow
def test_the_real_fork_server_has_one_thread(tmp_path):
    """All that is preloaded leaves one thread, else the server would end on its assertion."""
    from mmexp.sweeping.workers.forkserver import HEAVY

    server = ForkServer(HEAVY, {"OMP_NUM_THREADS": "1"})
    task = tmp_path / "task.json"
    task.write_text("{}")
    worker = server.start(task, tmp_path / "log", {}, [])
    deadline = time.monotonic() + 120
    while worker.code is None and time.monotonic() < deadline:
        assert server.look()
        time.sleep(0.05)
    assert worker.pid is not None and worker.code is not None
    server.close()


def test_modules_of_a_config():
    node = {"_target_": "a.b.C", "x": [{"_target_": "d.E"}], "y": {"z": {"_target_": "a.b.F"}}}
    assert list(target_modules(node)) == ["a.b", "d", "a.b"]


def test_log_tail_is_printable(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"first\n" * 50 + b"\xff\x00\x1b[31mred\rlast\n\n")
    lines = log_tail(path).splitlines()
    assert lines[-1] == "last" and len(lines) == 20
    assert all(line.isprintable() for line in lines)
    assert log_tail(tmp_path / "nothing") == ""
