"""Why is a stage not reused? Finished ones of the same name, and the fields in which the nearest one differs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmexp.files import STAGE_FILE, read_json
from mmexp.stages.graph import Graph, StageSpec
from mmexp.stages.store import Store

MISSING = "(not there)"
ORDER = ("order of keys", "another", "this one")
"""The same fields in another order are another stage: the order of encoders and datasets has a meaning."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of one stage of a config."""

    name: str
    key: str
    folder: Path | None
    """Where it is, if it is finished."""
    nearest: str | None
    """Key of the finished stage of that name that differs least."""
    differences: tuple[tuple[str, str, str], ...] = ()
    """(field, value there, value here), parents' keys as ``parents.NAME``."""


def explain(graph: Graph, store: Store) -> list[Explanation]:
    """One answer for each stage, in the order of the graph."""
    finished = list(_finished(store))
    return [_explain_one(spec, store, finished) for spec in graph.stages.values()]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Fields of two nested values that differ: (dotted name, old, new)."""
    before, after = dict(_flat(old)), dict(_flat(new))
    names = list(dict.fromkeys((*after, *before)))
    pairs = ((name, before.get(name, MISSING), after.get(name, MISSING)) for name in names)
    return [(name, str(there), str(here)) for name, there, here in pairs if there != here]


def nearest_finished(record: Mapping[str, Any], store: Store) -> tuple[str | None, list[tuple[str, str, str]]]:
    """Of another finished stage with a record's name the key, and the fields in which it differs; the nearest one."""
    candidates = [
        (_differences_of(other, record), other["key"])
        for other in _finished(store)
        if other.get("name") == record["name"] and other["key"] != record["key"]
    ]
    if not candidates:
        return None, []
    found, key = min(candidates, key=lambda candidate: len(candidate[0]))
    return key, found or [ORDER]


def _differences_of(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    sides = [
        {
            "version": record["version"],
            "parents": record.get("parents", {}),
            "node": _names(record["node"], record.get("parents", {})),
        }
        for record in (old, new)
    ]
    return differences(*sides)


def _explain_one(spec: StageSpec, store: Store, finished: list[dict[str, Any]]) -> Explanation:
    folder = store.find(spec.key)
    if folder is not None:
        return Explanation(spec.name, spec.key, folder, None)
    here = {**spec.hashed, "parents": dict(spec.parents)}
    candidates = [
        (_differences_of(record, here), record["key"]) for record in finished if record.get("name") == spec.name
    ]
    if not candidates:
        return Explanation(spec.name, spec.key, None, None)
    found, key = min(candidates, key=lambda candidate: len(candidate[0]))
    return Explanation(spec.name, spec.key, None, key, tuple(found or [ORDER]))


def _names(node: Any, parents: Mapping[str, str]) -> Any:
    """Parents' keys as names again: a changed parent is one difference, not one per reference."""
    if isinstance(node, Mapping):
        return {name: _names(value, parents) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return [_names(value, parents) for value in node]
    if isinstance(node, str):
        for name, key in parents.items():
            node = node.replace(f"stage:{key}", f"stage:{name}")
    return node


def _finished(store: Store) -> Iterator[dict[str, Any]]:
    for root in (*store.shipped, store.stages, store.runs):
        for path in sorted(root.glob(f"*/{STAGE_FILE}")):
            record = read_json(path)
            if record and {"key", "node", "version"} <= record.keys():
                yield record


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _flat(item, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, list | tuple) and value:
        for index, item in enumerate(value):
            yield from _flat(item, f"{prefix}[{index}]")
    else:
        yield prefix, value
