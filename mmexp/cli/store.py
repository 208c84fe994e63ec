"""``mmexp store ls|explain KEY|gc``: what is there, why a stage is not used again, and cleaning."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmexp.cli.arguments import read_arguments
from mmexp.config import Composer
from mmexp.errors import UserError, nearest
from mmexp.statistics import numbers

HELP = """\
mmexp store ls                        stages and runs, their sizes, and who refers to them
mmexp store explain KEY               one stage or run, and which fields differ from the nearest finished one
mmexp store gc [--delete] [--runs]    what nobody refers to; deletes it only with --delete

  days=1         gc leaves alone what was changed since (a run outside of sweeps may still need it)
  --runs         gc also takes runs that no sweep refers to, and what only they need
  paths.root=DIR (or MMEXP_OUT), --scale lab|paper

What a sweep's ledger refers to, now or in an earlier form of its table, is never deleted; nor what is being made.
"""
ACTIONS = ("ls", "explain", "gc")


def main(arguments: Sequence[str]) -> int:
    found = read_arguments(arguments, own=("--delete", "--runs"), max_names=2)
    if "--help" in found.flags or not found.names:
        print(HELP, end="")
        return 0
    action, *names = found.names
    if action not in ACTIONS:
        raise UserError(f"store: no '{action}'; {nearest(action, ACTIONS)}")
    if bool(names) != (action == "explain"):
        raise UserError(
            "store: " + ("explain KEY: give a key, or its first letters" if not names else HELP.split("\n")[0])
        )
    days = read_days([text for text in found.overrides if text.startswith("days=")])
    store, sweeps = places(found.scale, [text for text in found.overrides if not text.startswith("days=")])
    if action == "explain":
        from mmexp.stages.inventory import explain_key

        print("\n".join(explain_key(store, sweeps, names[0])))
    elif action == "ls":
        show(store, sweeps)
    else:
        collect(store, sweeps, days, found.flags)
    return 0


def places(scale: str, overrides: Sequence[str]) -> tuple[Any, Path]:
    """The store, and the folder of all sweeps' ledgers."""
    from mmexp.stages.store import Store
    from mmexp.sweeping.spec.sweep import paths_of

    with Composer(scale).open() as composer:
        paths = paths_of(composer.compose(overrides))
    return Store.from_config({"paths": paths}), Path(paths["sweeps"]).absolute()


def read_days(given: Sequence[str]) -> float:
    """Raises ``UserError``."""
    text = given[-1].partition("=")[2] if given else "1"
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not days >= 0:
        raise UserError(f"days={text}: a number of days is needed, not below 0")
    return days


def show(store: Any, sweeps: Path) -> None:
    from mmexp.stages.inventory import inventory

    items = inventory(store, sweeps)
    for item in items:
        kind = "run" if item.is_run else "stage"
        state = ("earlier version" if item.earlier else "finished") if item.finished else "begun"
        users = f"{len(item.used_by)} users, {item.used_by[0]}" if item.used_by else "nobody refers to it"
        print(f"{kind:<5}  {item.key[:20]:<20}  {item.name:<16}  {state:<15}  {numbers.size(item.size):>8}  {users}")
    print(f"{len(items)} entries, {numbers.size(sum(item.size for item in items))} in {store.stages} and {store.runs}")


def collect(store: Any, sweeps: Path, days: float, flags: set[str]) -> None:
    from mmexp.stages.inventory import delete, garbage, inventory

    found = garbage(store, inventory(store, sweeps), days, "--runs" in flags)
    for item in found:
        print(f"{item.folder}  {item.name}  {numbers.size(item.size)}")
        if "--delete" in flags:
            delete(item)
    verb = "deleted" if "--delete" in flags else "could be deleted (--delete)"
    print(f"{len(found)} entries, {numbers.size(sum(item.size for item in found))} {verb}")
