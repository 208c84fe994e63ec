"""Where finished stages lie, and how one gets there.

``<store>/<key>/`` is a finished stage, ``<runs>/<key>/`` a finished trial; both hold ``stage.json``. Work in progress
is ``<key>.partial-<n>``, n the number of its owner: a successor renames the folder, so that a former owner that was
only suspended finds nothing to write to. Finishing is one rename. Read-only roots (artefacts that travel with the
package) are looked in first and never written.
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmexp.errors import UserError
from mmexp.files import LOCKS_FOLDER, PROGRESS_FILE, STAGE_FILE, read_json, write_json
from mmexp.stages.graph import StageSpec
from mmexp.stages.lock import Lock, Owner, Watch, latest_owner, try_lock

POLL_S = 0.5


class LostOwnershipError(RuntimeError):
    """Another process took this one for dead and works on the stage now."""


class Store:
    """Finished stages and trials, and the right to make more.

    Args:
        stages: folder of stages.
        runs: folder of trials.
        shipped: further folders of finished stages, only read.
    """

    def __init__(self, stages: Path, runs: Path, shipped: Sequence[Path] = ()) -> None:
        self.stages, self.runs = stages.absolute(), runs.absolute()
        self.shipped = [folder.absolute() for folder in shipped]
        self.watch = Watch()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Store":
        """The store that ``paths`` of a resolved config names, with the package's own artefacts."""
        paths = config["paths"]
        return cls(Path(paths["store"]), Path(paths["runs"]), [shipped_artifacts()])

    def root(self, spec: StageSpec) -> Path:
        return self.runs if spec.is_terminal else self.stages

    def find(self, key: str) -> Path | None:
        """Folder of a finished stage or trial."""
        for root in (*self.shipped, self.stages, self.runs):
            if (root / key / STAGE_FILE).is_file():
                return root / key
        return None

    def record(self, key: str) -> dict[str, Any]:
        """``stage.json`` of a finished stage; empty where it is not finished."""
        folder = self.find(key)
        return (read_json(folder / STAGE_FILE) if folder else None) or {}

    def owner(self, spec: StageSpec) -> Owner | None:
        """The living process that makes a stage now."""
        owner = latest_owner(self.root(spec) / LOCKS_FOLDER, spec.key)
        return owner if owner and self.watch.alive(owner) else None

    def progress(self, spec: StageSpec) -> tuple[int, int] | None:
        """(step, total) of work in progress, where it says so."""
        folder = self._partial(spec)
        value = read_json(folder / PROGRESS_FILE) if folder else None
        return (int(value["step"]), int(value["total"])) if value else None

    def unfinished(self, spec: StageSpec) -> Path | None:
        """Where a stage is being made, or was left by whoever ended; None where nobody began."""
        return self._partial(spec)

    def acquire(self, spec: StageSpec, on_wait: Callable[[Owner], None]) -> tuple[Lock, Path] | None:
        """Become the one who makes a stage, after waiting for whoever does now.

        Returns:
            The lock and the folder to work in (with what a predecessor left there); None when the stage is finished.

        Raises:
            UserError: the store cannot be written.
        """
        root = self.root(spec)
        told = None
        while self.find(spec.key) is None:
            try:
                lock = try_lock(root / LOCKS_FOLDER, spec.key, self.watch)
            except OSError as error:
                raise UserError(
                    f"paths: {root} cannot be written ({error.strerror}); choose another paths.root"
                ) from None
            if isinstance(lock, Lock):
                if self.find(spec.key) is None:
                    return lock, self._workdir(spec, lock)
                lock.release(finished=True)
                return None
            if told != lock.path:
                told = lock.path
                on_wait(lock)
            time.sleep(POLL_S)
        return None

    def finish(self, spec: StageSpec, lock: Lock, workdir: Path, record: Mapping[str, Any]) -> Path:
        """Make the stage visible to everybody, whole, by one rename."""
        write_json(workdir / STAGE_FILE, record)
        (workdir / PROGRESS_FILE).unlink(missing_ok=True)
        if not lock.holds():
            raise LostOwnershipError(f"{spec.name} {spec.key}: another process took over")
        folder = self.root(spec) / spec.key
        os.rename(workdir, folder)
        lock.release(finished=True)
        return folder

    def give_up(self, lock: Lock, workdir: Path, *, discard: bool) -> None:
        """Release a lock without a result. What is there is kept for whoever continues, unless ``discard``."""
        if discard:
            shutil.rmtree(workdir, ignore_errors=True)
        lock.release(finished=False)

    def _workdir(self, spec: StageSpec, lock: Lock) -> Path:
        workdir = self.root(spec) / f"{spec.key}.partial-{lock.number}"
        left = self._partial(spec)
        if left is None:
            workdir.mkdir()
        else:
            os.rename(left, workdir)
        return workdir

    def _partial(self, spec: StageSpec) -> Path | None:
        pattern = re.compile(re.escape(spec.key) + r"\.partial-(\d+)")
        try:
            found = [
                (int(match[1]), name) for name in os.listdir(self.root(spec)) if (match := pattern.fullmatch(name))
            ]
        except FileNotFoundError:
            return None
        return self.root(spec) / max(found)[1] if found else None


def shipped_artifacts() -> Path:
    """Finished stages that travel with the package."""
    return Path(__file__).parent.parent / "lab" / "artifacts"
