"""``mmexp lab build`` and ``ship``: make the lab's stages, one on each core; put the trained ones into the package."""

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from mmexp.errors import UserError
from mmexp.files import DONE, STAGE_FILE, read_json, write_json
from mmexp.stages.graph import StageSpec, build_graph
from mmexp.stages.run import TrialContext, build_stage
from mmexp.stages.store import Store
from mmexp.statistics import numbers
from mmexp.sweeping.engine.display import Display
from mmexp.sweeping.engine.scheduler import ending_signals
from mmexp.sweeping.engine.work import Launcher, write_task
from mmexp.sweeping.workers.local import LocalLauncher

WORLD = "lab_world"
TRAINED = ("mmexp.lab.expert_stage.", "mmexp.lab.language_stage.", "mmexp.lab.grown_stage.")
"""Stages that are worth shipping; the others are drawn in seconds."""
BUILD_FOLDER = "lab_build"
POLL_S = 0.2


@dataclass
class Making:
    """A stage that a worker makes now."""

    spec: StageSpec
    handle: Any
    log: Path
    started: float


def artifact_dir() -> Path:
    """Read-only root of shipped stages, ``<stage key>/``; a stage whose key is not among them is built."""
    return Path(__file__).parent / "artifacts"


def lab_specs(config: Mapping[str, Any]) -> dict[str, StageSpec]:
    """Name -> spec of every stage of the lab, parents first."""
    specs: dict[str, StageSpec] = {}
    for name in config["lab"]["stages"]:
        specs |= dict(build_graph(config, name).stages)
    return specs


def trained_specs(config: Mapping[str, Any]) -> dict[str, StageSpec]:
    """Name -> spec of the stages that travel with the package."""
    return {name: spec for name, spec in lab_specs(config).items() if str(spec.node["_target_"]).startswith(TRAINED)}


def build(config: Mapping[str, Any], store: Store) -> None:
    """Make the stages that are missing, one on each core, the longest first; says where each one is.

    What a killed build left is continued.

    Raises:
        UserError: a config that cannot work, before anything is started; what the first stage that failed said.
    """
    specs = lab_specs(config)
    missing = [spec for spec in specs.values() if store.find(spec.key) is None]
    for spec in missing:
        if all(store.find(key) for key in spec.parents.values()):
            build_stage(spec, store)
    if missing:
        launcher = LocalLauncher(n_jobs=min(len(missing), len(os.sched_getaffinity(0))), timeout_s=None, fork=True)
        try:
            make(missing, store, launcher, Path(config["paths"]["root"]) / BUILD_FOLDER, Display(Console()))
        finally:
            launcher.close()
    for name, spec in specs.items():
        print(f"{name:16} {'made' if spec in missing else 'exists':6}   {store.find(spec.key)}")


def make(missing: list[StageSpec], store: Store, launcher: Launcher, folder: Path, display: Display) -> None:
    """Start what can be started until all is made or something failed; running stages are then finished.

    Raises:
        UserError: what the first stage that failed said, with its log.
    """
    waiting = sorted(missing, key=lambda spec: -_steps(spec.node))
    running: list[Making] = []
    failed = ""
    with display, ending_signals():
        try:
            while running or (waiting and not failed):
                for spec in [] if failed else list(waiting):
                    if len(running) < launcher.slots and all(store.find(key) for key in spec.parents.values()):
                        waiting.remove(spec)
                        running.append(_start(spec, store, launcher, folder, display))
                for item in list(running):
                    outcome = launcher.poll(item.handle)
                    if outcome is not None:
                        running.remove(item)
                        word = "done" if outcome.status == DONE else f"{outcome.status}: {outcome.reason}"
                        display.event(f"{item.spec.name}: {word} after {time.monotonic() - item.started:.0f} s")
                        if outcome.status != DONE:
                            failed = failed or f"{outcome.reason} (stage {item.spec.name}; log: {item.log})"
                _show(display, running, store, len(missing) - len(waiting) - len(running), len(missing))
                time.sleep(POLL_S)
        finally:
            for item in running:
                launcher.cancel(item.handle)
    if failed:
        raise UserError(failed)


def _steps(node: Any) -> int:
    """Of all budgets in a node: how long it takes, roughly."""
    if isinstance(node, Mapping):
        own = int(node["budget"]["steps"]) if "budget" in node else 0
        return own + sum(_steps(value) for name, value in node.items() if name != "budget")
    return sum(_steps(value) for value in node) if isinstance(node, list | tuple) else 0


def _start(spec: StageSpec, store: Store, launcher: Launcher, folder: Path, display: Display) -> Making:
    context = TrialContext(key=spec.key, sweep=None, row=spec.name, tags=[])
    try:
        for part in ("tasks", "logs"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        work = write_task(folder, spec, store, context)
    except OSError as error:
        raise UserError(f"paths: {folder} cannot be written ({error.strerror}); choose another paths.root") from None
    display.event(f"{spec.name}: started; log: {work.log_file}")
    return Making(spec, launcher.submit(work), work.log_file, time.monotonic())


def _show(display: Display, running: list[Making], store: Store, done: int, total: int) -> None:
    now = time.monotonic()
    lines = [(item.spec.name, store.progress(item.spec), now - item.started) for item in running]
    display.show(lines, done, total, 0, 0, 0)


def ship(config: Mapping[str, Any], store: Store) -> None:
    """Put the finished experts and language models into the package, and take out what no config names any more."""
    specs = trained_specs(config)
    missing = [name for name, spec in specs.items() if store.find(spec.key) is None]
    if missing:
        raise UserError(f"lab ship: {', '.join(missing)} is not built; run 'mmexp lab build' first")
    root = artifact_dir()
    keys = {spec.key for spec in specs.values()}
    for old in root.iterdir() if root.is_dir() else []:
        if old.name not in keys:
            shutil.rmtree(old)
    for name, spec in specs.items():
        size = ship_one(spec, store, root)
        print(f"{name:16} {spec.key}  {numbers.size(size)}")


def ship_one(spec: StageSpec, store: Store, root: Path) -> int:
    """Copy a finished stage; its record does not name the machine. Returns its size in bytes."""
    source = store.find(spec.key)
    assert source is not None
    if source.parent != root:
        shutil.copytree(source, root / spec.key)
        record = read_json(root / spec.key / STAGE_FILE) or {}
        write_json(root / spec.key / STAGE_FILE, {**record, "machine": ""})
    return sum(path.stat().st_size for path in (root / spec.key).rglob("*"))
