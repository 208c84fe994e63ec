import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from mmexp.stages import lock as ownership
from mmexp.stages.lock import Lock, Owner, Watch, latest_owner, start_of, try_lock


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "owners"


def take(folder, watch=None) -> Lock:
    got = try_lock(folder, "k", watch or Watch())
    assert isinstance(got, Lock)
    return got


def test_second_one_learns_who_is_first(folder):
    first = take(folder)
    second = try_lock(folder, "k", Watch())
    assert isinstance(second, Owner) and second.pid == os.getpid()
    first.release(finished=True)
    assert list(folder.iterdir()) == []


def test_released_ownership_goes_on_with_the_next_number(folder):
    take(folder).release(finished=False)
    second = take(folder)
    assert second.number == 2
    assert [path.name for path in folder.iterdir()] == ["k.2"]
    second.release(finished=True)


def test_keys_do_not_meet(folder):
    first = take(folder)
    other = try_lock(folder, "k.1", Watch())
    assert isinstance(other, Lock)
    first.release(finished=True)
    other.release(finished=True)


def test_a_killed_process_is_followed_at_once(folder):
    code = f"""
import sys, time
from pathlib import Path
from mmexp.stages.lock import try_lock, Watch
try_lock(Path({str(folder)!r}), "k", Watch())
print("ready", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    assert isinstance(try_lock(folder, "k", Watch()), Owner)
    process.send_signal(signal.SIGKILL)
    # Not waited for yet: a zombie is dead, too.
    deadline = time.monotonic() + 5
    while not isinstance(got := try_lock(folder, "k", Watch()), Lock):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert got.number == 2
    got.release(finished=True)
    process.wait()


def elsewhere(folder, **changes):
    folder.mkdir(exist_ok=True)
    record = {"machine": "other/boot/pid:[1]", "pid": 1, "started": "1", "released": False, **changes}
    (folder / "k.1").write_text(json.dumps(record))


def test_an_owner_elsewhere_lives_while_its_heartbeat_moves(folder):
    elsewhere(folder)
    watch = Watch(stale_s=0.2)
    for _ in range(4):
        assert isinstance(try_lock(folder, "k", watch), Owner)
        time.sleep(0.1)
        os.utime(folder / "k.1", ns=(0, time.time_ns()))
    time.sleep(0.1)
    assert isinstance(try_lock(folder, "k", watch), Owner)
    time.sleep(0.3)
    got = take(folder, watch)
    assert got.number == 2
    got.release(finished=True)


def test_a_torn_record_counts_as_elsewhere(folder):
    folder.mkdir()
    (folder / "k.1").write_text('{"machine": "x')
    watch = Watch(stale_s=0.05)
    assert isinstance(try_lock(folder, "k", watch), Owner)
    time.sleep(0.1)
    take(folder, watch).release(finished=True)


def test_a_process_id_that_was_given_again_is_another_process(folder):
    elsewhere(folder, machine=ownership.this_machine(), pid=os.getpid(), started="12345")
    take(folder).release(finished=True)


def test_an_owner_that_was_followed_knows(folder):
    first = take(folder)
    elsewhere(folder)
    (folder / "k.1").rename(folder / "k.2")
    assert not first.holds()
    first.release(finished=False)
    assert json.loads((folder / "k.2").read_text())["released"] is False


def test_a_late_follower_of_a_removed_number_gives_way(folder, monkeypatch):
    """It saw owner 1 dead, slept while 2 and 3 came, and creates number 2 again."""
    elsewhere(folder, machine=ownership.this_machine(), pid=0)
    real = ownership._create

    def late(path, record):
        monkeypatch.setattr(ownership, "_create", real)
        take(folder).release(finished=False)
        self_owned = take(folder)
        assert self_owned.number == 3
        held.append(self_owned)
        return real(path, record)

    held: list[Lock] = []
    monkeypatch.setattr(ownership, "_create", late)
    got = try_lock(folder, "k", Watch())
    assert isinstance(got, Owner) and got.number == 3
    assert sorted(path.name for path in folder.iterdir()) == ["k.3"]
    held[0].release(finished=True)


def test_heartbeat_moves(folder, monkeypatch):
    monkeypatch.setattr(ownership, "HEARTBEAT_S", 0.02)
    got = take(folder)
    os.utime(got.path, (0, 0))
    time.sleep(0.3)
    assert latest_owner(folder, "k").heartbeat > 1e9
    got.release(finished=True)


def test_start_of_tells_processes_apart():
    assert start_of(os.getpid()) == start_of(os.getpid()) != ""
    assert start_of(2**22 + 1) == ""


def compete(folder, turns, out):
    watch = Watch()
    for _ in range(turns):
        got = try_lock(folder, "k", watch)
        if isinstance(got, Lock):
            inside = folder.parent / "inside"
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails when somebody else is inside
            time.sleep(0.001)
            inside.unlink()
            got.release(finished=False)
            out.put(got.number)


def test_never_two_owners(folder):
    folder.mkdir(parents=True)
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    processes = [context.Process(target=compete, args=(folder, 60, out)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    numbers = []
    while not out.empty():
        numbers.append(out.get())
    assert len(numbers) == len(set(numbers)) > 4
