"""What is in a store, who refers to it, and what may go."""

import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmexp.errors import UserError, nearest
from mmexp.files import LEDGER_FILE, LOCKS_FOLDER, STAGE_FILE, read_json
from mmexp.stages.explain import is_earlier, nearest_finished
from mmexp.stages.graph import StageSpec
from mmexp.stages.lock import Watch, latest_owner
from mmexp.stages.store import Store

PARTIAL = re.compile(r"(?P<key>\w+)\.partial-\d+")
DELETED = ".deleted-"
DAY_S = 86_400.0
MIN_PREFIX = 4


@dataclass(frozen=True, kw_only=True)
class Item:
    """A folder of the store."""

    folder: Path
    key: str
    name: str
    """Of the stage; empty where that is not known."""
    is_run: bool
    """A finished or begun trial, not a stage that trials share."""
    finished: bool
    earlier: bool
    """Finished under a key of an earlier version of mmexp: it is not used again."""
    size: int
    """Bytes."""
    changed: float
    """Seconds since the epoch, of the folder's latest change."""
    used_by: tuple[str, ...]
    """Sweeps and runs that refer to it."""


def inventory(store: Store, sweeps: Path) -> list[Item]:
    """Everything in the writable folders of a store, stages before runs, the largest first.

    Raises:
        UserError: a ledger cannot be read, so what it refers to is not known.
    """
    users = references(store, sweeps)
    items = [item for root in (store.stages, store.runs) for item in _items(root, root == store.runs, users)]
    return sorted(items, key=lambda item: (item.is_run, -item.size))


def references(store: Store, sweeps: Path) -> dict[str, set[str]]:
    """Key -> who needs it: every ledger's trials and stages, earlier ones too, every run, and their parents."""
    users: dict[str, set[str]] = {}
    for path in sorted(sweeps.rglob(LEDGER_FILE)):
        ledger = read_json(path)
        if not isinstance(ledger, dict):
            raise UserError(f"{path}: not readable, so what it refers to is not known; move it away, or mend it")
        for entry in [*ledger.get("trials", []), *ledger.get("earlier", [])]:
            for key in (entry["key"], *entry.get("stage_keys", {}).values()):
                users.setdefault(key, set()).add(f"sweep {path.parent.relative_to(sweeps)}")
    for path in store.runs.glob(f"*/{STAGE_FILE}"):
        for key in _ancestors(store, (read_json(path) or {}).get("parents", {})):
            users.setdefault(key, set()).add(f"run {path.parent.name}")
    for key in list(users):
        for parent in _ancestors(store, store.record(key).get("parents", {})):
            users.setdefault(parent, set()).update(users[key])
    return users


def garbage(store: Store, items: list[Item], days: float, runs: bool) -> list[Item]:
    """What nobody refers to and nobody makes, older than ``days``; finished runs only when ``runs``.

    What a ledger refers to is never in it.
    """
    watch, before = Watch(), time.time() - days * DAY_S
    found = []
    for item in items:
        owner = latest_owner((store.runs if item.is_run else store.stages) / LOCKS_FOLDER, item.key)
        busy = owner is not None and watch.alive(owner)
        wanted = any(user.startswith("sweep ") for user in item.used_by)
        wanted = wanted or (bool(item.used_by) and not runs) or (item.is_run and item.finished and not runs)
        if not busy and not wanted and item.changed < before:
            found.append(item)
    return found


def delete(item: Item) -> None:
    """Out of sight by one rename, so that nobody finds half of it; then away. Raises ``UserError``."""
    away = item.folder.with_name(f"{DELETED}{item.folder.name}-{uuid.uuid4().hex[:8]}")
    try:
        os.rename(item.folder, away)
    except OSError as error:
        raise UserError(f"{item.folder}: cannot be deleted ({error.strerror})") from None
    shutil.rmtree(away, ignore_errors=True)


def explain_key(store: Store, sweeps: Path, start: str) -> list[str]:
    """Lines on one key, given by its first letters: what it is, and how the nearest finished stage differs.

    Raises:
        UserError: no stage, run or frozen task has a key that begins so, or several have.
    """
    known = {folder.name for root in (store.stages, store.runs, *store.shipped) for folder in _finished(root)}
    tasks = {path.stem.rpartition("-")[2]: path for path in sweeps.rglob("tasks/*.json") if ".outcome" not in path.name}
    found = sorted(key for key in known | tasks.keys() if key.startswith(start))
    if len(start) < MIN_PREFIX or not found:
        raise UserError(f"store explain: no key begins with '{start}'; {nearest(start, known | tasks.keys())}")
    if len(found) > 1:
        raise UserError(f"store explain: '{start}' may be {', '.join(found)}; give more letters")
    key = found[0]
    record = store.record(key) or _of_task(tasks[key])
    folder = store.find(key)
    lines = [f"{record['name']} {key}: {f'finished: {folder}' if folder else 'not finished'}"]
    if folder and is_earlier(record):
        lines.append("  of an earlier version of mmexp (its key is made differently); it is not used again")
    lines += [f"  from {name} {parent}" for name, parent in record.get("parents", {}).items()]
    lines += [f"  used by {user}" for user in sorted(references(store, sweeps).get(key, ()))]
    other, differences = nearest_finished(record, store)
    if other:
        lines.append(f"  nearest other finished one: {other}")
        lines += [f"    {difference}" for difference in differences]
    return lines


def _of_task(path: Path) -> dict[str, Any]:
    task = read_json(path)
    if not isinstance(task, dict):
        raise UserError(f"{path}: not readable")
    spec = StageSpec.from_json(task["spec"])
    return {"name": spec.name, "key": spec.key, **spec.hashed, "parents": dict(spec.parents)}


def _finished(root: Path) -> Iterator[Path]:
    yield from (path.parent for path in root.glob(f"*/{STAGE_FILE}"))


def _ancestors(store: Store, parents: Mapping[str, str]) -> Iterator[str]:
    """Keys of all that something was made from."""
    for key in parents.values():
        yield key
        yield from _ancestors(store, store.record(key).get("parents", {}))


def _items(root: Path, is_run: bool, users: Mapping[str, set[str]]) -> Iterator[Item]:
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        partial = PARTIAL.fullmatch(folder.name)
        finished = (folder / STAGE_FILE).is_file() and not folder.name.startswith(".")
        if not (folder.is_dir() and (finished or partial or folder.name.startswith(DELETED))):
            continue
        key = partial["key"] if partial else folder.name
        record = read_json(folder / STAGE_FILE) or {}
        files = [path.stat() for path in folder.rglob("*") if path.is_file()]
        yield Item(
            folder=folder,
            key=key,
            name=str(record.get("name", "")),
            is_run=is_run,
            finished=finished,
            earlier=finished and is_earlier(record),
            size=sum(stat.st_size for stat in files),
            changed=max((stat.st_mtime for stat in files), default=folder.stat().st_mtime),
            used_by=tuple(sorted(users.get(key, ()))),
        )
