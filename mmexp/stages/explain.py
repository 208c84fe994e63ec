"""Why is a stage not reused? Finished ones of the same name, and in what the nearest one differs."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmexp.files import STAGE_FILE, read_json
from mmexp.stages.differences import ORDER, Difference, differences
from mmexp.stages.graph import KEY_FORMAT, Graph, StageSpec
from mmexp.stages.store import Store


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of one stage of a config."""

    name: str
    key: str
    folder: Path | None
    """Where it is, if it is finished."""
    nearest: str | None
    """Key of the finished stage of that name that differs least."""
    differences: tuple[Difference, ...] = ()


def explain(graph: Graph, store: Store) -> list[Explanation]:
    """One answer for each stage, in the order of the graph."""
    finished = list(_comparable(store))
    return [_explain_one(spec, store, finished) for spec in graph.stages.values()]


def nearest_finished(record: Mapping[str, Any], store: Store) -> tuple[str | None, list[Difference]]:
    """Of another finished stage with a record's name the key, and in what it differs; the nearest one."""
    others = [other for other in _comparable(store) if other["key"] != record["key"]]
    return _nearest(record, others) if record.get("key_format") == KEY_FORMAT else (None, [])


def earlier_stages(names: Collection[str], store: Store) -> int:
    """How many finished stages of these names have a key of an earlier version of mmexp, which is not looked for."""
    return sum(record.get("name") in names and is_earlier(record) for record in _records(store))


def earlier_line(names: Collection[str], store: Store) -> str | None:
    """What to say of them, once per command, when stages of these names are missing; None where there are none."""
    count = earlier_stages(names, store)
    if not count:
        return None
    stages, whose, are = ("stage", "its key is", "it is") if count == 1 else ("stages", "their keys are", "they are")
    return (
        f"the store holds {count} finished {stages} of an earlier version of mmexp ({whose} made differently); "
        f"{are} not used again; see mmexp store ls"
    )


def is_earlier(record: Mapping[str, Any]) -> bool:
    """Whether a finished stage's key was made by an earlier version of mmexp."""
    return int(record.get("key_format") or 1) < KEY_FORMAT


def _explain_one(spec: StageSpec, store: Store, finished: list[dict[str, Any]]) -> Explanation:
    folder = store.find(spec.key)
    if folder is not None:
        return Explanation(spec.name, spec.key, folder, None)
    key, found = _nearest({"name": spec.name, **spec.hashed, "parents": dict(spec.parents)}, finished)
    return Explanation(spec.name, spec.key, None, key, tuple(found))


def _nearest(record: Mapping[str, Any], others: list[dict[str, Any]]) -> tuple[str | None, list[Difference]]:
    candidates = [(differences(other, record), other["key"]) for other in others if other["name"] == record["name"]]
    if not candidates:
        return None, []
    found, key = min(candidates, key=lambda candidate: len(candidate[0]))
    return key, found or [ORDER]


def _comparable(store: Store) -> Iterator[dict[str, Any]]:
    """Records whose keys are made as they are today."""
    needed = {"key", "name", "node", "identities"}
    yield from (record for record in _records(store) if needed <= record.keys() and not is_earlier(record))


def _records(store: Store) -> Iterator[dict[str, Any]]:
    for root in (*store.shipped, store.stages, store.runs):
        for path in sorted(root.glob(f"*/{STAGE_FILE}")):
            record = read_json(path)
            if isinstance(record, dict):
                yield record
