"""Sweeper ``table``: rows x axes x seeds, validated, frozen, run, reported."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from mmexp.config import Composer
from mmexp.errors import UserError
from mmexp.recipe.ownership import Claim, Watch, try_claim
from mmexp.recipe.store import OWNERS, Store
from mmexp.sweeping.check import check_trial
from mmexp.sweeping.display import Display
from mmexp.sweeping.engine import Engine, plan_tasks
from mmexp.sweeping.ledger import Head, Ledger
from mmexp.sweeping.preview import say_shared, show_preview
from mmexp.sweeping.rows import CommandLine, check_node, expand, read_command_line
from mmexp.sweeping.trials import Mistakes, Trial, Validator, freeze, validate_all
from mmexp.sweeping.work import DONE, Launcher

BLIND_SCALE = "lab"
"""Scale at which every sweep gets the blind baseline by itself."""


Report = Callable[[Path, Console], None]
"""Shows what a sweep's folder holds."""


class MissingResultsError(RuntimeError):
    """The sweep ran to its end, but not every trial has a result."""


def sweep_table(
    *,
    scale: str,
    arguments: Sequence[str],
    launcher: Launcher,
    dry_run: bool,
    retry_failed: bool,
    report: Report,
    validate: Validator | None = None,
    console: Console | None = None,
) -> Path | None:
    """Run a sweep, or go on with it; ``retry_failed`` also with what failed before.

    Args:
        arguments: overrides; ``sweeps=NAME`` chooses the sweep, without it each point of the comma overrides is a row.
        launcher: where stages run; closed at the end.
        dry_run: stop after validation and show what would be run.
        validate: raises ``UserError`` for a config that cannot work; ``check_trial`` by default.
        console: where to write; by default events go to stderr and tables to stdout.

    Returns:
        The sweep's folder; None for a dry run.

    Raises:
        UserError: all mistakes of all rows; nothing has been started.
        MissingResultsError: at the end, trials without a result.
    """
    events, tables = console or Console(stderr=True), console or Console()
    line = read_command_line(arguments)
    node, trials = load_table(scale, line)
    store = Store.from_config(trials[0].config)
    tasks = plan_tasks(trials, store)
    try:
        if tasks and not dry_run:
            launcher.prepare(tasks[0].spec.node.get("num_threads"))
        mistakes = Mistakes()
        waiting = [trial for task in tasks for trial in task.trials]
        validate_all(waiting, validate or check_trial, mistakes)
        mistakes.raise_if_any()
        share_features(waiting)
        if dry_run:
            show_preview(trials, store, tables)
            return None
        folder = sweep_folder(trials[0].config, scale, line.name)
        head = Head(name=line.name, scale=scale, sweep=node, command=tuple(arguments))
        ledger = conduct(folder, head, trials, launcher, retry_failed, events)
    finally:
        launcher.close()
    finish(ledger, trials, tables, report)
    return folder


def share_features(trials: Sequence[Trial]) -> None:
    """Each frozen encoder runs once per image in the whole sweep: every stage is told the depths that all need."""
    from mmexp.planning.taps import share_taps

    distinct = {trial.key: trial for trial in trials if (trial.config.get("evaluation") or {}).get("model")}
    runtimes: list[list[Any]] = [[spec.runtime for spec in trial.graph.stages.values()] for trial in distinct.values()]
    share_taps([trial.config for trial in distinct.values()], runtimes)


def conduct(
    folder: Path, head: Head, trials: Sequence[Trial], launcher: Launcher, retry_failed: bool, console: Console
) -> Ledger:
    """Run frozen trials as far as they can be run, under the sweep's ledger.

    Raises:
        UserError: another process runs this sweep, or the folder cannot be written.
    """
    store = Store.from_config(trials[0].config)
    with one_controller(folder):
        ledger = Ledger(folder, head)
        ledger.begin(trials, store)
        say_shared([trial for trial in trials if trial.request.selected], console)
        try:
            Engine(plan_tasks(trials, store), store, launcher, ledger, Display(console), retry_failed).run()
        except OSError as error:
            raise UserError(
                f"{error.filename or folder}: {error.strerror}; the same command goes on from here"
            ) from None
    return ledger


def load_table(scale: str, line: CommandLine) -> tuple[dict[str, Any], list[Trial]]:
    """The config node ``sweep`` and its frozen trials.

    Raises:
        UserError: all mistakes of all rows.
    """
    from omegaconf import OmegaConf

    with Composer(scale).open() as composer:
        base = composer.compose(line.plain)
        found: Any = OmegaConf.to_container(base.config.sweep, resolve=False) if base.config.get("sweep") else {}
        if line.sweep is not None or found:
            check_node(found, line.sweep or "")
        mistakes = Mistakes()
        requests = expand(found, line, blind=scale == BLIND_SCALE)
        trials = freeze(composer, requests, mistakes)
        mistakes.raise_if_any()
    if line.sweep is None:
        found["rows"] = {request.row: {"overrides": list(request.overrides)} for request in requests}
        found.setdefault("metric", next(iter(trials[0].config.get("aggregates") or {}), None))
    return {**found, "seeds": list(dict.fromkeys(request.seed for request in requests))}, trials


def sweep_folder(config: Mapping[str, Any], scale: str, name: str) -> Path:
    """Where a sweep's ledger, logs and report are."""
    return Path(config["paths"]["sweeps"]).absolute() / scale / name


@contextmanager
def one_controller(folder: Path) -> Iterator[None]:
    """The right to write a sweep's ledger. Raises ``UserError`` while another process has it."""
    try:
        claim = try_claim(folder / OWNERS, "controller", Watch())
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another paths.root") from None
    if not isinstance(claim, Claim):
        raise UserError(f"this sweep is being run by {claim}; wait for it, or end it first")
    try:
        yield
    finally:
        claim.release(finished=False)


def finish(ledger: Ledger, trials: Sequence[Trial], console: Console, report: Report) -> None:
    """Report, then say what is missing. Raises ``MissingResultsError``."""
    selected = [trial for trial in trials if trial.request.selected]
    missing: dict[str, list[str]] = {}
    for trial, entry in zip(trials, ledger.trials, strict=True):
        if trial.request.selected and entry["status"] != DONE:
            reason = f"{entry['status']}: {entry['reason']}"
            missing.setdefault(reason, []).append(f"{trial.request.label}/{trial.request.seed}")
    if ledger.count(DONE):
        report(ledger.folder, console)
    for reason, cells in missing.items():
        console.print(f"no result: {', '.join(cells)}: {reason}", markup=False, soft_wrap=True)
    if missing:
        number = sum(map(len, missing.values()))
        raise MissingResultsError(
            f"{number} of {len(selected)} trials have no result; the same command goes on with those that were killed, "
            "with retry_failed=true also with those that failed"
        )
