"""``--dry-run``: trials, distinct stages, which exist, which will be made and how often each is used."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmexp.stages.graph import StageSpec
from mmexp.stages.store import Store
from mmexp.sweeping.engine.scheduler import plan_tasks
from mmexp.sweeping.spec.trials import Trial, shared_trials


def show_preview(trials: Sequence[Trial], store: Store, console: Console) -> None:
    """Print both tables and their sums."""
    selected = [trial for trial in trials if trial.request.selected]
    console.print(_trial_table(selected, store))
    console.print(_stage_table(selected, store))
    say_shared(selected, console)
    tasks = plan_tasks(selected, store)
    uses = sum(len(task.trials) for task in tasks)
    done = sum(store.find(trial.key) is not None for trial in selected)
    console.print(
        f"{len(selected)} trials, {done} done; {len(tasks)} stages and evaluations to make "
        f"({uses} if every trial made its own)"
    )


def say_shared(trials: Sequence[Trial], console: Console) -> None:
    """Name rows that are one and the same trial."""
    for group in shared_trials(trials):
        console.print(Text(f"one trial, run once: {', '.join(group)}"))


def _trial_table(trials: Sequence[Trial], store: Store) -> Table:
    table = Table(title="trials", title_justify="left")
    for column in ("row", "seed", "key", "state", "overrides"):
        table.add_column(column, no_wrap=column == "key", justify="right" if column == "seed" else "left")
    for trial in trials:
        request = trial.request
        state = "done" if store.find(trial.key) else "to run"
        overrides = " ".join(text for text in request.overrides if not text.startswith("sweeps="))
        table.add_row(Text(request.label), str(request.seed), trial.key[:8], state, Text(overrides))
    return table


def _stage_table(trials: Sequence[Trial], store: Store) -> Table:
    table = Table(title="distinct stages", title_justify="left")
    for column in ("stage", "key", "state", "used by"):
        table.add_column(column, no_wrap=column == "key")
    specs: dict[str, StageSpec] = {}
    uses: dict[str, list[str]] = {}
    for trial in trials:
        for spec in trial.graph.stages.values():
            specs[spec.key] = spec
            uses.setdefault(spec.key, []).append(f"{trial.request.label}/{trial.request.seed}")
    to_make = {task.spec.key for task in plan_tasks(trials, store)}
    for key, spec in sorted(specs.items(), key=lambda item: (item[1].is_terminal, -len(uses[item[0]]))):
        state = "to make" if key in to_make else ("exists" if store.find(key) else "not needed")
        users = uses[key][0] if len(uses[key]) == 1 else f"{len(uses[key])} trials"
        table.add_row(spec.name, key[:8], state, Text(users))
    return table
