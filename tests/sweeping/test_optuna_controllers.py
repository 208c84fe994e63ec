"""Searches that are killed, shared by two controllers, and pruned while their stages run."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from mmexp.sweeping.session import run_sweep
from mmexp.sweeping.workers.local import LocalLauncher
from tests import fakes
from tests.sweeping.search_fakes import order, write_user_folders

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(write_user_folders(tmp_path))
    monkeypatch.setenv(fakes.JOURNAL, str(tmp_path / "journal"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "journal").touch()
    return tmp_path


def elsewhere(here, *arguments):
    """A controller in a process of its own."""
    command = [sys.executable, "-m", "tests.sweeping.search_fakes", *arguments]
    return subprocess.Popen(command, cwd=here, start_new_session=True)


def search(*arguments):
    shown = io.StringIO()
    launcher = LocalLauncher(n_jobs=1, timeout_s=None, fork=True, preload=())
    folder = run_sweep(order(launcher, list(arguments), shown))
    return folder, shown.getvalue()


def wait_for_lines(here, number):
    deadline = time.monotonic() + 120
    while len((here / "journal").read_text().splitlines()) < number and time.monotonic() < deadline:
        time.sleep(0.05)


def study_of(here):
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(
            str(here / "mmexp_out/sweeps/paper/search@recipe.seconds=2/study.journal")
        )
    )
    return optuna.load_study(study_name="paper/search@recipe.seconds=2", storage=storage)


def test_after_a_kill_the_running_trial_goes_on_under_its_number(here):
    arguments = ("sweeps=search", "recipe.seconds=2", "++sweep.search.n_trials=2")
    process = elsewhere(here, *arguments)
    wait_for_lines(here, 2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left = study_of(here).trials
    assert [trial.state.name for trial in left] == ["RUNNING"]
    search(*arguments)
    trials = study_of(here).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE"]
    assert trials[0].params == left[0].params
    steps = (here / "journal").read_text().splitlines()
    assert len(set(steps)) == 2 * (4 + 1) and len(steps) <= len(set(steps)) + 1  # what the last checkpoint lacked


def test_two_controllers_share_one_study_and_its_budget(here):
    arguments = ("sweeps=search", "recipe.seconds=2", "++sweep.search.n_trials=4")
    other = elsewhere(here, *arguments)
    wait_for_lines(here, 1)
    os.kill(other.pid, signal.SIGSTOP)  # it lives, and has one trial; the rest of the budget is for the second one
    folder, shown = search(*arguments)
    assert [trial.state.name for trial in study_of(here).trials].count("RUNNING") == 1
    os.kill(other.pid, signal.SIGCONT)
    assert other.wait(120) == 0
    trials = study_of(here).trials
    assert "controller 2 of this study" in shown and folder.parent.name == "controllers"
    own = [trial for trial in trials if "same_as" not in trial.user_attrs]
    assert [trial.state.name for trial in own] == ["COMPLETE"] * 4
    assert [trial.user_attrs["controller"][:12] for trial in own] == ["controller-1"] + ["controller-2"] * 3
    steps = (here / "journal").read_text().splitlines()
    assert len(steps) == len(set(steps)) == 4 * (4 + 1)


def test_a_trial_that_looks_bad_is_ended_and_is_neither_failed_nor_missing(here):
    folder, shown = search("sweeps=pruned", "recipe.seconds=6")
    trials = json.loads((folder / "ledger.json").read_text())["search"]["trials"]
    pruned = [trial for trial in trials if trial["state"] == "pruned"]
    done = [trial for trial in trials if trial["state"] == "done"]
    assert pruned and len(done) + len(pruned) == 6
    assert max(trial["values"][0] for trial in done) == 6
    assert all(trial["intermediate"] and "mean" in trial["reason"] for trial in pruned)
    ledger = json.loads((folder / "ledger.json").read_text())["trials"]
    assert sorted(entry["status"] for entry in ledger) == ["done"] * len(done) + ["pruned"] * len(pruned)
    assert "pruned: mean" in shown
    steps = len((here / "journal").read_text().splitlines())
    search("sweeps=pruned", "recipe.seconds=6")
    assert len((here / "journal").read_text().splitlines()) == steps
