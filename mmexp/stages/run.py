"""Run a frozen stage, here: from its spec to its finished folder, whoever else wants the same one."""

import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmexp.errors import UserError
from mmexp.evaluation.result import library_versions
from mmexp.files import CONFIG_FILE, METRICS_FILE, PROGRESS_FILE, RESULT_FILE, write_json, write_text
from mmexp.instantiate import allow_prefixes, instantiate
from mmexp.interfaces import Stage
from mmexp.stages.differences import changed_places
from mmexp.stages.fingerprints import Fingerprints
from mmexp.stages.graph import Graph, StageSpec, replace_references, stage_key
from mmexp.stages.identity import identified
from mmexp.stages.lock import Owner
from mmexp.stages.store import Store

TRIAL_FIELDS = ("key", "sweep", "row", "tags", "config")
PROGRESS_EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class TrialContext:
    """What a stage may say about the trial that it is made for; nothing here changes a result."""

    key: str
    sweep: str | None
    row: str
    tags: list[str]
    config: Mapping[str, Any] = field(default_factory=dict)
    """The resolved config."""
    choices: Mapping[str, Any] = field(default_factory=dict)
    """Config group -> chosen option."""
    stage_keys: Mapping[str, str] = field(default_factory=dict)


def run_stage(
    spec: StageSpec, store: Store, context: TrialContext | None, on_wait: Callable[[Owner], None] | None = None
) -> Path:
    """Make a stage, or wait for whoever makes it; its parents must be finished.

    The stage object gets its node with references replaced by absolute paths. Its ``run`` gets a folder, which may hold
    what a killed run left, and ``runtime`` with these keys added: ``progress(step, total)``, ``stage_name``; ``trial``
    with ``key``, ``sweep``, ``row``, ``tags`` and ``config``; and for the last stage ``trial_key``, ``stage_keys``,
    ``stage_seconds`` and ``config_choices``.

    Returns:
        The finished folder.

    Raises:
        UserError: from the stage, nothing is left behind then; or its data or code have changed since its key was made.
            Any other error leaves the folder for a later try.
    """
    done = store.find(spec.key)
    if done is not None:
        return done
    stage = build_stage(spec, store)
    check_unchanged(spec, store)
    acquired = store.acquire(spec, on_wait or say_waiting(spec))
    if acquired is None:
        folder = store.find(spec.key)
        assert folder is not None
        return folder
    lock, workdir = acquired
    started = time.monotonic()
    try:
        stage.run(workdir, runtime_of(spec, store, context, workdir))
        if spec.is_terminal and context is not None:
            add_trial_files(workdir, store, context)
            mirror_trial(spec, workdir, store, context)
        record = stage_record(spec, time.monotonic() - started, lock.number, context)
        return store.finish(spec, lock, workdir, record)
    except BaseException as error:
        store.give_up(lock, workdir, discard=isinstance(error, UserError))
        raise


def missing_stages(graph: Graph, store: Store) -> list[str]:
    """Names of the stages that must be made, parents first; what only finished stages need is not among them."""
    needed = {graph.last.name} if store.find(graph.key) is None else set()
    for name, spec in reversed(list(graph.stages.items())):
        if name in needed:
            needed |= {parent for parent, key in spec.parents.items() if store.find(key) is None}
    return [name for name in graph.stages if name in needed]


def build_stage(spec: StageSpec, store: Store) -> Any:
    """The stage object. Raises ``UserError`` naming the config key when its arguments do not fit."""

    def path_of(name: str, sub: str) -> str:
        folder = store.find(spec.parents[name])
        assert folder is not None, f"{spec.name}: {name} {spec.parents[name]} is not finished"
        return f"{folder}{sub}"

    allow_prefixes(spec.allow)
    return instantiate(replace_references(spec.node, path_of), spec.where, expect=Stage)


def check_unchanged(spec: StageSpec, store: Store) -> None:
    """Raises ``UserError`` where data or code have changed since the key was made: the result would be another's."""
    hashed, identities = identified(spec.node, Fingerprints(store.stages, create=True))
    if stage_key(hashed, spec.parents) != spec.key:
        changes = "; ".join(map(str, changed_places(spec.identities, identities, spec.node)))
        raise UserError(f"{spec.where}: changed since this run was planned: {changes}; give the command again")


def runtime_of(spec: StageSpec, store: Store, context: TrialContext | None, workdir: Path) -> dict[str, Any]:
    """What ``run`` gets beside the folder."""
    progress = progress_writer(workdir / PROGRESS_FILE)
    given = replace_references(spec.runtime, lambda name, sub: f"{store.find(spec.parents[name])}{sub}")
    runtime: dict[str, Any] = {**given, "progress": progress, "stage_name": spec.name, "trial": None}
    if context is None:
        return runtime
    runtime["trial"] = {name: getattr(context, name) for name in TRIAL_FIELDS}
    if spec.is_terminal:
        keys = {name: key for name, key in context.stage_keys.items() if key != spec.key}
        seconds = {name: store.record(key).get("seconds") for name, key in keys.items()}
        runtime["trial_key"] = spec.key
        runtime["stage_keys"] = keys
        runtime["stage_seconds"] = {name: value for name, value in seconds.items() if value is not None}
        runtime["config_choices"] = dict(context.choices)
    return runtime


def progress_writer(path: Path) -> Callable[[int, int], None]:
    """``progress(step, total)``, which writes at most once a second."""
    written = 0.0

    def progress(step: int, total: int) -> None:
        nonlocal written
        now = time.monotonic()
        if now - written >= PROGRESS_EVERY_S or step >= total:
            written = now
            write_json(path, {"step": step, "total": total})

    return progress


def stage_record(spec: StageSpec, seconds: float, attempts: int, context: TrialContext | None) -> dict[str, Any]:
    """``stage.json``: what was made, from what, by what, for which trial. ``seconds`` is the last attempt's time."""
    return {
        "name": spec.name,
        "key": spec.key,
        **spec.hashed,
        "parents": dict(spec.parents),
        "seconds": round(seconds, 3),
        "attempts": attempts,
        "trial": context.key if context else None,
        "versions": library_versions(),
        "machine": platform.node(),
    }


def add_trial_files(workdir: Path, store: Store, context: TrialContext) -> None:
    """The trial's config, and the curves of all its stages, each line with its stage's name."""
    import yaml

    write_text(workdir / CONFIG_FILE, yaml.safe_dump(dict(context.config), sort_keys=False, allow_unicode=True))
    with (workdir / METRICS_FILE).open("w", encoding="utf-8") as out:
        for name, key in context.stage_keys.items():
            folder = store.find(key)
            lines = folder / METRICS_FILE if folder else None
            if lines is not None and lines.is_file():
                for line in lines.read_text(encoding="utf-8").splitlines():
                    if line.startswith("{"):
                        out.write(f'{{"stage": "{name}", {line[1:]}\n')


def mirror_trial(spec: StageSpec, workdir: Path, store: Store, context: TrialContext) -> None:
    """Show the trial in the loggers: its scores, and the curves of stages that were made for another trial."""
    node = spec.runtime.get("logger")
    if not (node and node.get("loggers")):
        return
    from mmexp.training.loggers import log_curves, log_result

    trial = {name: getattr(context, name) for name in TRIAL_FIELDS}
    for name, key in context.stage_keys.items():
        folder = store.find(key)
        if folder and (folder / METRICS_FILE).is_file() and store.record(key).get("trial") != context.key:
            log_curves(node, trial, name, folder / METRICS_FILE)
    log_result(node, trial, spec.name, workdir / RESULT_FILE)


def say_waiting(spec: StageSpec) -> Callable[[Owner], None]:
    def say(owner: Owner) -> None:
        print(f"waiting for {spec.name} {spec.key}: {owner} is making it", file=sys.stderr, flush=True)

    return say
