"""Who makes a stage: at most one process at a time, on one machine or on several that share a file system.

Owners of a key are numbered. Owner n is whoever created the file ``<key>.<n>``, and creation is exclusive: the record
is written to a temporary file that is hard-linked to that name. A successor n+1 is only created when owner n has given
up or is dead, and the highest number is never removed while the key is unfinished; so two processes that both find
owner n dead cannot both follow it, and there is nothing to delete that could be a living owner's.

Relied upon (they hold on local file systems and on NFS since version 2): ``link`` fails when the name exists,
``rename`` is atomic, a freshly opened file shows its latest modification time. Clocks need not agree: a heartbeat
counts as stale when a watcher has seen it unchanged for ``STALE_S`` of the watcher's own clock.

Dead means: on the same machine, no process of that id and start time; elsewhere, the heartbeat stands still.
An owner that was only suspended and comes back is fenced off by the store, which renames the folder it worked in.
"""

import errno
import json
import os
import platform
import re
import threading
import time
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

HEARTBEAT_S = 5.0
STALE_S = 120.0
NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """The latest owner of a key, as its file says."""

    path: Path
    number: int
    machine: str
    pid: int
    started: str
    released: bool
    heartbeat: float
    """Modification time of the file."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.machine.split('/')[0]}"


class Watch:
    """Tells living owners from dead ones; remembers heartbeats between calls."""

    def __init__(self, stale_s: float = STALE_S) -> None:
        self.stale_s = stale_s
        self._seen: dict[Path, tuple[float, float]] = {}

    def alive(self, owner: Owner) -> bool:
        """False for an owner that gave up or is surely gone."""
        if owner.released:
            return False
        if owner.machine == this_machine():
            return bool(owner.started) and owner.started == start_of(owner.pid)
        seen, since = self._seen.get(owner.path, (None, 0.0))
        now = time.monotonic()
        if owner.heartbeat != seen:
            self._seen[owner.path] = (owner.heartbeat, now)
            return True
        return now - since <= self.stale_s


class Lock:
    """Ownership of a key by this process, with its heartbeat; ends by ``release``."""

    def __init__(self, path: Path, number: int, record: dict[str, Any]) -> None:
        self.path, self.number = path, number
        self._record = record
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat {path.name}", daemon=True)
        self._thread.start()

    def holds(self) -> bool:
        """False when another process has taken over."""
        latest = latest_owner(self.path.parent, self.path.name.rpartition(".")[0])
        return latest is not None and latest.number == self.number

    def release(self, *, finished: bool) -> None:
        """Give up. Finished keys lose all their files; others keep theirs, so that numbers go on."""
        self._stop.set()
        self._thread.join()
        if finished:
            for path in _owner_files(self.path.parent, self.path.name.rpartition(".")[0]).values():
                path.unlink(missing_ok=True)
        elif self.holds():
            temporary = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}")
            temporary.write_text(json.dumps({**self._record, "released": True}))
            os.replace(temporary, self.path)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                os.utime(self.path)
            except OSError:
                continue


def try_lock(folder: Path, key: str, watch: Watch) -> Lock | Owner:
    """Become the owner of ``key``, or learn who is.

    Whoever gets a lock must look again whether the key has been finished in the meantime.
    """
    folder.mkdir(parents=True, exist_ok=True)
    owner = latest_owner(folder, key)
    while owner is None or not watch.alive(owner):
        number = owner.number + 1 if owner else 1
        record = {"machine": this_machine(), "pid": os.getpid(), "started": start_of(os.getpid()), "released": False}
        path = folder / f"{key}.{number}"
        if _create(path, record):
            files = _owner_files(folder, key)
            if max(files) == number:
                for earlier in files.keys() - {number}:
                    files[earlier].unlink(missing_ok=True)
                return Lock(path, number, record)
            path.unlink()  # a number of the past, whose file had been removed
        owner = latest_owner(folder, key)
    return owner


def latest_owner(folder: Path, key: str) -> Owner | None:
    """Whoever has the highest number; None where nobody ever held the key."""
    files = _owner_files(folder, key)
    for number in sorted(files, reverse=True):
        try:
            with files[number].open(encoding="utf-8") as file:
                record = json.load(file)
                heartbeat = os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            continue
        except ValueError:
            record, heartbeat = {}, files[number].stat().st_mtime
        return Owner(
            path=files[number],
            number=number,
            machine=record.get("machine", "unknown"),
            pid=record.get("pid", 0),
            started=record.get("started", ""),
            released=record.get("released", False),
            heartbeat=heartbeat,
        )
    return None


@lru_cache(maxsize=1)
def this_machine() -> str:
    """Host name, boot and process namespace: where they agree, process ids mean the same processes."""
    return "/".join((platform.node(), _read("/proc/sys/kernel/random/boot_id"), _namespace()))


def start_of(pid: int) -> str:
    """When a process began, in the kernel's own count: tells a process from a later one with its id.

    Empty for one that has ended, also where its parent has not collected it yet.
    """
    stat = _read(f"/proc/{pid}/stat")
    if stat:
        state, *fields = stat.rpartition(")")[2].split()
        return "" if state in "ZX" else fields[18]
    if os.path.isdir("/proc/self"):
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "running"


def _owner_files(folder: Path, key: str) -> dict[int, Path]:
    pattern = re.compile(re.escape(key) + r"\.(\d+)")
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return {}
    return {int(match[1]): folder / name for name in names if (match := pattern.fullmatch(name))}


def _create(path: Path, record: dict[str, Any]) -> bool:
    """Exclusively create a whole file. A lost NFS answer shows as an error although the link was made."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    temporary.write_text(json.dumps(record))
    try:
        os.link(temporary, path)
        return True
    except OSError as error:
        if temporary.stat().st_nlink == 2:
            return True
        if path.exists():
            return False
        if error.errno not in NO_HARD_LINKS:
            raise
        return _create_by_open(path, record)
    finally:
        temporary.unlink(missing_ok=True)


def _create_by_open(path: Path, record: dict[str, Any]) -> bool:
    """For file systems without hard links: exclusive too, but a reader may see the file before its text."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(record))
    except FileExistsError:
        return False
    return True


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
