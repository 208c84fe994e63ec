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


def controller(root: Path, journal: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sweeping.tables", str(root), str(SECONDS)],
        env={**os.environ, fakes.JOURNAL: str(journal)},
        start_new_session=True,
    )


def workers_of(pid: int) -> list[int]:
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


def kill_something(process: subprocess.Popen, what: str) -> int:
    """Returns how many workers were killed at most."""
    workers = workers_of(process.pid)
    victims = {"controller": [process.pid], "worker": workers[:1], "all": [*workers, process.pid]}[what]
    for victim in victims:
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return len(workers)


def sweep_under_fire(root: Path, kills: int, seed: int) -> None:
    journal = root / "journal"
    journal.touch()
    dice = random.Random(seed)
    lost = 0
    process = controller(root, journal)
    for _ in range(kills):
        try:
            process.wait(dice.uniform(0.3, 1.2))
        except subprocess.TimeoutExpired:
            lost += kill_something(process, dice.choice(["controller", "worker", "all"]))
        if process.poll() is not None:
            process = controller(root, journal)
    for _ in range(3):  # a worker that was killed leaves its row to the next start
        if process.wait(60) == 0:
            break
        process = controller(root, journal)
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


def test_a_few_kills(tmp_path):
    sweep_under_fire(tmp_path, kills=5, seed=0)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(1, 8))
def test_many_kills(tmp_path, seed):
    sweep_under_fire(tmp_path, kills=8, seed=seed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_workers_and_keeps_the_ledger(tmp_path, number):
    journal = tmp_path / "journal"
    journal.touch()
    process = controller(tmp_path, journal)
    while len(steps(journal)) < 4:
        time.sleep(0.02)
    workers = workers_of(process.pid)
    process.send_signal(number)
    process.wait(20)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    assert set(statuses(tmp_path).values()) == {"pending"}
    before = len(steps(journal))
    time.sleep(0.5)
    assert len(steps(journal)) == before
