"""``mmexp lab build`` and ``ship``: make the lab's stages, one on each core; put the trained ones into the package."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mmexp.errors import UserError
from mmexp.files import DONE, STAGE_FILE, read_json, write_json
from mmexp.stages.fingerprints import Fingerprints
from mmexp.stages.graph import Graph, StageSpec, build_graph
from mmexp.stages.run import build_stage
from mmexp.stages.store import Store
from mmexp.statistics import numbers
from mmexp.sweeping.engine.control import control
from mmexp.sweeping.engine.ledger import Head
from mmexp.sweeping.spec.table import Request
from mmexp.sweeping.spec.trials import Trial
from mmexp.sweeping.workers.local import LocalLauncher
from mmexp.sweeping.workers.task import Launcher

WORLD = "lab_world"
TRAINED = ("ExpertStage", "LanguageModelStage", "GrownLanguageModelStage")
"""Stages that are worth shipping; the others are drawn in seconds."""
BUILD_FOLDER = "lab_build"


def artifact_dir() -> Path:
    """Read-only root of shipped stages, ``<stage key>/``; a stage whose key is not among them is built."""
    return Path(__file__).parent / "artifacts"


def lab_specs(config: Mapping[str, Any]) -> dict[str, StageSpec]:
    """Name -> spec of every stage of the lab, parents first."""
    specs: dict[str, StageSpec] = {}
    fingerprints = Fingerprints.from_config(config)
    for name in config["lab"]["stages"]:
        specs |= dict(build_graph(config, name, fingerprints).stages)
    return specs


def trained_specs(config: Mapping[str, Any]) -> dict[str, StageSpec]:
    """Name -> spec of the stages that travel with the package."""
    specs = lab_specs(config)
    return {name: spec for name, spec in specs.items() if str(spec.node["_target_"]).rpartition(".")[2] in TRAINED}


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
        graphs = [build_graph(config, spec.name) for spec in missing]
        try:
            make(graphs, store, launcher, Path(config["paths"]["root"]) / BUILD_FOLDER, Console())
        finally:
            launcher.close()
    for name, spec in specs.items():
        print(f"{name:16} {'made' if spec in missing else 'exists':6}   {store.find(spec.key)}")


def make(graphs: Sequence[Graph], store: Store, launcher: Launcher, folder: Path, console: Console) -> None:
    """Make the last stage of each graph, the longest first, as a sweep makes its trials.

    Raises:
        UserError: what the first stage that failed said, with its log.
    """
    trials = [_trial(graph) for graph in sorted(graphs, key=lambda graph: -_steps(graph.last.node))]
    head = Head(name=BUILD_FOLDER, scale="lab", sweep={}, command=())
    with control(folder, head, store, launcher, True, console) as controller:
        controller.run(trials)
    ended = [controller.measured(trial) for trial in trials]
    failed = [answer for answer in ended if answer.status != DONE]
    if failed:
        first = min(failed, key=lambda answer: "stage " in answer.reason)  # what failed itself, not what waited for it
        stage = controller.ledger.stages[first.trial.key]
        raise UserError(f"{first.reason} (stage {first.trial.request.row}; log: {stage.get('log')})")


def _trial(graph: Graph) -> Trial:
    request = Request(row=graph.last.name, axes={}, seed=0, overrides=())
    return Trial(request=request, config={}, choices={}, graph=graph)


def _steps(node: Any) -> int:
    """Of all budgets in a node: how long it takes, roughly."""
    if isinstance(node, Mapping):
        own = int(node["budget"]["steps"]) if "budget" in node else 0
        return own + sum(_steps(value) for name, value in node.items() if name != "budget")
    return sum(_steps(value) for value in node) if isinstance(node, list | tuple) else 0


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
