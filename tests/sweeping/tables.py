"""Sweeps of fake stages, run without composing configs."""

import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mmexp.stages.graph import build_graph
from mmexp.stages.store import Store
from mmexp.sweeping.engine.control import Then, control
from mmexp.sweeping.engine.ledger import Head, Ledger
from mmexp.sweeping.spec.table import Request
from mmexp.sweeping.spec.trials import Trial
from mmexp.sweeping.workers.inline import InlineLauncher
from mmexp.sweeping.workers.local import LocalLauncher
from mmexp.sweeping.workers.task import Launcher
from tests import fakes

ROWS: dict[str, dict[str, Any]] = {"one": {"value": 1}, "two": {"value": 2}, "three": {"value": 3}}


def trials(
    root: Path, rows: Mapping[str, Mapping[str, Any]], seeds: Sequence[int] = (0,), only: Sequence[str] = ()
) -> list[Trial]:
    """Rows x seeds as the engine gets them, seeds last."""
    found = []
    for seed in seeds:
        for row, changes in rows.items():
            config = fakes.config(root, seed=seed, **changes)
            request = Request(row=row, axes={}, seed=seed, overrides=(), selected=not only or row in only)
            found.append(Trial(request=request, config=config, choices={}, graph=build_graph(config)))
    return found


def run(
    root: Path,
    table: Sequence[Trial],
    launcher: Launcher | None = None,
    retry_failed: bool = False,
    then: Then | None = None,
    name: str = "test",
) -> tuple[Ledger, str]:
    """Run a table; returns its ledger and what was shown."""
    shown = io.StringIO()
    head = Head(name="test", scale="lab", sweep={"rows": {}}, command=())
    console = Console(file=shown, width=200)
    launcher = launcher or InlineLauncher()
    try:
        store = Store.from_config(fakes.config(root))
        with control(root / "sweeps" / name, head, store, launcher, retry_failed, console) as controller:
            controller.run(table, then)
    finally:
        launcher.close()
    return controller.ledger, shown.getvalue()


def ledger_of(root: Path) -> dict[str, Any]:
    return json.loads((root / "sweeps" / "test" / "ledger.json").read_text())


def statuses(root: Path) -> dict[tuple[str, int], str]:
    return {(entry["row"], entry["seed"]): entry["status"] for entry in ledger_of(root)["trials"]}


def local(n_jobs: int = 2, timeout_s: float | None = None, fork: bool = True) -> LocalLauncher:
    return LocalLauncher(n_jobs=n_jobs, timeout_s=timeout_s, fork=fork, preload=())


def results(root: Path) -> dict[str, float]:
    """Trial key -> score of every finished trial."""
    folders = [folder for folder in (root / "runs").iterdir() if not folder.name.startswith(".")]
    return {folder.name: json.loads((folder / "result.json").read_text())["metrics"]["score"] for folder in folders}


def steps(journal: Path) -> list[str]:
    return journal.read_text().splitlines()


if __name__ == "__main__":
    # The controller of a sweep, to be killed: root, seconds for each stage, fork or spawn.
    here = Path(sys.argv[1])
    rows = {row: {**changes, "seconds": float(sys.argv[2])} for row, changes in ROWS.items()}
    ledger, _ = run(here, trials(here, rows, seeds=(0, 1)), local(fork=sys.argv[3] == "fork"))
    sys.exit(0 if ledger.count("done") == 6 else 1)
