"""``mmexp run``: one trial, all its stages in this process; with ``-m`` several, through the sweep engine."""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmexp.cli import sweep
from mmexp.cli.arguments import Arguments, read_arguments
from mmexp.cli.list import overview
from mmexp.config import Composed, Composer
from mmexp.errors import UserError

HELP = """\
mmexp run [--scale lab|paper] [--dry-run] [--explain] [key=value ...]      one run: stages, evaluation, result
mmexp run -m key=a,b key=c,d seed=0,1                one run per combination, through the sweep engine

  --dry-run            check everything, show which stages would be made, start nothing
  --explain            which stages exist, and which field makes a missing one another stage
  --cfg job            the composed config (--resolve: with all values filled in; --package KEY: a part of it)
  --info defaults      where its parts come from;  --hydra-help: Hydra's own flags
  seed=1  paths.root=DIR (or MMEXP_OUT)  hydra.launcher.n_jobs=4  hydra/launcher=inline (with -m)

Finished stages are used again; an interrupted run resumes when the same command is given.

"""
SHOW_S = 0.5


def main(arguments: Sequence[str]) -> int:
    found = read_arguments(arguments, own=("--explain", "--dry-run"))
    if "--help" in found.flags:
        print(HELP + overview(found.scale))
    elif found.shows_only:
        from mmexp.cli.hydra_app import show

        show(found)
    elif found.is_multirun:
        if "--explain" in found.flags:
            raise UserError("--explain: is for one run; leave out -m")
        return sweep.start(found)
    else:
        start(found)
    return 0


def start(found: Arguments) -> None:
    """Compose one config; run it, or say what running it would make. Raises ``UserError``."""
    print("mmexp: composing", file=sys.stderr, flush=True)
    with Composer(found.scale).open() as composer:
        composed = composer.compose(found.overrides)
    if composed.config.get("sweep"):
        raise UserError("sweeps=...: a sweep is started with 'mmexp sweep NAME', not with 'mmexp run'")
    if "--explain" in found.flags:
        explain_run(composed)
    elif "--dry-run" in found.flags:
        check_run(composed)
    else:
        run_one(composed)


def resolved(composed: Composed) -> dict[str, Any]:
    """The config of the run itself."""
    found = composed.resolved(sweep=None)
    del found["sweep"]
    return found


def check_run(composed: Composed) -> None:
    """Check all that can be known to fail, and show the stages. Raises ``UserError``."""
    from mmexp.planning.check import check_trial
    from mmexp.stages.graph import build_graph
    from mmexp.stages.run import missing_stages
    from mmexp.stages.store import Store

    config = resolved(composed)
    graph, store = build_graph(config), Store.from_config(config)
    print("mmexp: checking", file=sys.stderr, flush=True)
    check_trial(config)
    missing = missing_stages(graph, store)
    for name, key in graph.keys.items():
        state = "to make" if name in missing else ("exists" if store.find(key) else "not needed")
        print(f"{name:16} {key}  {state}")


def run_one(composed: Composed) -> Path:
    """Make what the trial lacks, here; prints its metrics. Returns its folder."""
    from rich.console import Console

    from mmexp.planning.check import check_trial
    from mmexp.stages.graph import build_graph
    from mmexp.stages.run import missing_stages, run_stage
    from mmexp.stages.store import Store
    from mmexp.sweeping.spec.table import Request
    from mmexp.sweeping.spec.trials import Trial

    seed = int(composed.config.seed)
    config = resolved(composed)
    request = Request(row="run", axes={}, seed=seed, overrides=())
    trial = Trial(request=request, config=config, choices=composed.choices, graph=build_graph(config))
    store = Store.from_config(trial.config)
    console = Console(stderr=True)
    missing = missing_stages(trial.graph, store)
    if missing:
        print("mmexp: checking", file=sys.stderr, flush=True)
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
    from mmexp.files import RESULT_FILE, read_json

    metrics = (read_json(folder / RESULT_FILE) or {}).get("metrics", {})
    width = max(map(len, metrics), default=0)
    for name, value in metrics.items():
        print(f"{name:<{width}}  {'-' if value is None else format(value, '.2f')}")
    print(f"result: {folder}")


def explain_run(composed: Composed) -> None:
    """Stages of a config: which exist; of a missing one, in which fields the nearest finished one differs."""
    from mmexp.planning.check import check_trial
    from mmexp.stages.explain import explain
    from mmexp.stages.graph import build_graph
    from mmexp.stages.store import Store

    config = resolved(composed)
    check_trial(config)
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
