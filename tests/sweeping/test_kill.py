"""Kill anything at any time: the same command goes on, and every result is there once and right."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import fakes
from tests.sweeping.tables import ROWS, results, run, statuses, steps, trials

SECONDS = 0.25


def controller(root: Path, journal: Path, start: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sweeping.tables", str(root), str(SECONDS), start],
        env={**os.environ, fakes.JOURNAL: str(journal)},
        start_new_session=True,
    )


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def family(process: subprocess.Popen, start: str) -> tuple[list[int], list[int]]:
    """Fork servers and workers of a controller."""
    first = [pid for pid in children(process.pid) if "resource_tracker" not in command_line(pid)]
    return ([], first) if start == "spawn" else (first, [pid for server in first for pid in children(server)])


def wait_for_steps(journal: Path, number: int) -> None:
    deadline = time.monotonic() + 60
    while len(steps(journal)) < number:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill_something(process: subprocess.Popen, start: str, what: str) -> int:
    """Returns how many workers were lost at most."""
    servers, workers = family(process, start)
    victims = {
        "controller": [process.pid],
        "worker": workers[:1],
        "server": servers,
        "all": [*workers, *servers, process.pid],
    }[what]
    for victim in victims:
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return len(workers)


def sweep_under_fire(root: Path, kills: int, seed: int, start: str) -> None:
    journal = root / "journal"
    journal.touch()
    rng = random.Random(seed)
    lost = 0
    process = controller(root, journal, start)
    for _ in range(kills):
        try:
            process.wait(rng.uniform(0.4, 1.2))
        except subprocess.TimeoutExpired:
            lost += kill_something(process, start, rng.choice(["controller", "worker", "server", "all"]))
            time.sleep(0.1)
        if process.poll() is not None:
            process = controller(root, journal, start)
    for _ in range(3):  # a worker that was killed leaves its row to the next start
        if process.wait(60) == 0:
            break
        process = controller(root, journal, start)
    assert process.returncode == 0
    check(root, journal, lost)


def check(root: Path, journal: Path, lost: int) -> None:
    assert set(statuses(root).values()) == {"done"}
    assert not [path for path in root.rglob("*.partial*")]
    quiet = root / "quiet"
    run(quiet, trials(quiet, ROWS, seeds=(0, 1)))
    assert results(root) == results(quiet)
    lines = steps(journal)
    assert len(set(lines)) == 45
    assert len(lines) - 45 <= lost  # each lost worker repeats at most the step it was in


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_few_kills(tmp_path, start):
    sweep_under_fire(tmp_path, kills=5, seed=0, start=start)


@pytest.mark.faults
@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("seed", range(1, 6))
def test_many_kills(tmp_path, seed, start):
    sweep_under_fire(tmp_path, kills=8, seed=seed, start=start)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_an_interrupt_ends_the_workers_and_keeps_the_ledger(tmp_path, number, start):
    journal = tmp_path / "journal"
    journal.touch()
    process = controller(tmp_path, journal, start)
    wait_for_steps(journal, 4)
    servers, workers = family(process, start)
    process.send_signal(number)
    process.wait(20)
    assert not [pid for pid in (*servers, *workers) if Path(f"/proc/{pid}").exists()]
    assert set(statuses(tmp_path).values()) == {"pending"}
    before = len(steps(journal))
    time.sleep(0.5)
    assert len(steps(journal)) == before


def test_a_killed_fork_server_is_replaced_in_the_same_sweep(tmp_path):
    journal = tmp_path / "journal"
    journal.touch()
    process = controller(tmp_path, journal, "fork")
    wait_for_steps(journal, 8)
    servers, workers = family(process, "fork")
    os.kill(servers[0], signal.SIGKILL)
    assert process.wait(60) == 0
    check(tmp_path, journal, len(workers))
