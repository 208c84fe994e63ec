"""``mmexp run``: one trial, all its stages in this process; with ``-m`` several, through the sweep engine."""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmexp.cli.arguments import Arguments, read_arguments, run_hydra
from mmexp.cli.list import overview
from mmexp.config import Composed
from mmexp.errors import UserError

HELP = """\
mmexp run [--scale lab|paper] [--explain] [key=value ...]      one run: stages, evaluation, result
mmexp run -m key=a,b key=c,d seed=0,1                          one run per combination, through the sweep engine

  --explain            which stages exist, and which field makes a missing one another stage
  --cfg job            the composed config (--resolve: with all values filled in; --package KEY: a part of it)
  --info defaults      where its parts come from;  --hydra-help: Hydra's own flags
  seed=1  paths.root=DIR (or MMEXP_OUT)  hydra.launcher.n_jobs=4  hydra/launcher=inline (with -m)

Finished stages are used again; an interrupted run goes on when the same command is given.

"""
SHOW_S = 0.5


def main(arguments: Sequence[str]) -> int:
    found = read_arguments(arguments, own=("--explain",))
    if "--help" in found.flags:
        print(HELP + overview(found.scale))
        return 0
    return start(found)


def start(found: Arguments) -> int:
    """Hydra for the config; then the run, or, with ``-m``, what the sweeper has to say."""
    from mmexp.sweeping.session import MissingResultsError

    try:
        composed = run_hydra(found.scale, found.hydra, found.overrides)
    except MissingResultsError as error:
        print(f"mmexp: {error}", file=sys.stderr)
        return 1
    if composed is None or found.shows_only:
        return 0
    if composed.config.get("sweep"):
        raise UserError("sweeps=...: a sweep is started with 'mmexp sweep NAME', not with 'mmexp run'")
    if "--explain" in found.flags:
        explain_run(composed)
    else:
        run_one(composed)
    return 0


def run_one(composed: Composed) -> Path:
    """Make what the trial lacks, here; prints its metrics. Returns its folder."""
    from rich.console import Console

    from mmexp.stages.run import missing_stages, run_stage
    from mmexp.stages.store import Store
    from mmexp.sweeping.spec.check import check_trial
    from mmexp.sweeping.spec.rows import Request
    from mmexp.sweeping.spec.trials import freeze_one

    request = Request(row="run", axes={}, seed=int(composed.config.seed), overrides=(), selected=True)
    trial = freeze_one(request, composed)
    store = Store.from_config(trial.config)
    console = Console(stderr=True)
    missing = missing_stages(trial.graph, store)
    if missing:
        say_earlier(missing, store)
        check_trial(trial.config)
    for number, name in enumerate(missing):
        spec = trial.graph.stages[name]
        with watched(spec, store, console, number, len(missing)):
            run_stage(spec, store, trial.context(None))
    folder = store.find(trial.key)
    assert folder is not None
    show_result(folder)
    return folder


@contextmanager
def watched(spec: Any, store: Any, console: Any, number: int, total: int) -> Iterator[None]:
    """Shows a stage's progress while it runs."""
    from mmexp.sweeping.engine.display import Display

    stop, started = threading.Event(), time.monotonic()
    with Display(console) as display:

        def follow() -> None:
            while not stop.wait(SHOW_S):
                display.show([(spec.name, store.progress(spec), time.monotonic() - started)], number, total, 0, 1, 0)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        display.event(f"{spec.name}: done in {time.monotonic() - started:.0f} s")


def show_result(folder: Path) -> None:
    """Metrics on stdout, one per line, then where the rest is."""
    from mmexp.files import read_json

    metrics = (read_json(folder / "result.json") or {}).get("metrics", {})
    width = max(map(len, metrics), default=0)
    for name, value in metrics.items():
        print(f"{name:<{width}}  {'-' if value is None else format(value, '.2f')}")
    print(f"result: {folder}")


def explain_run(composed: Composed) -> None:
    """Stages of a config: which exist; of a missing one, in which fields the nearest finished one differs."""
    from mmexp.stages.explain import explain
    from mmexp.stages.graph import build_graph
    from mmexp.stages.store import Store

    config = composed.resolved()
    store = Store.from_config(config)
    answers = explain(build_graph(config), store)
    for answer in answers:
        state = f"exists: {answer.folder}" if answer.folder else "missing"
        print(f"{answer.name} {answer.key}: {state}")
        if answer.nearest:
            print(f"  nearest finished one: {answer.nearest}")
            for difference in answer.differences:
                print(f"    {difference}")
    say_earlier([answer.name for answer in answers if not answer.folder], store)


def say_earlier(missing: Sequence[str], store: Any) -> None:
    """One line on stderr where the store has missing stages under keys of an earlier version of mmexp."""
    from mmexp.stages.explain import earlier_line

    line = earlier_line(missing, store)
    if line:
        print(line, file=sys.stderr)
