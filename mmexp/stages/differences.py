"""In what two stages of one name differ, in words: settings, data, code, parents."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MISSING = "(not there)"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between a finished stage and another."""

    field: str
    """Place in the stage's node; a parent as ``parents.NAME``."""
    there: str
    here: str
    reason: str = ""
    """What it is, where two values alone would not say it."""

    def __str__(self) -> str:
        return f"{self.field}: {self.reason or f'{self.there} there, {self.here} here'}"


ORDER = Difference("order of keys", "another", "this one")
"""The same fields in another order are another stage: the order of encoders and datasets has a meaning."""


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """Of two records as ``stage.json`` holds them (``node``, ``identities``, ``parents``).

    A file or class that has only moved is no difference.
    """
    found = [
        Difference(f"parents.{name}", *_sides(old.get("parents", {}), new.get("parents", {}), name))
        for name in _both(old.get("parents", {}), new.get("parents", {}))
    ]
    before, after = (dict(flat(_names(record["node"], record.get("parents", {})))) for record in (old, new))
    for place in dict.fromkeys((*after, *before)):
        old_one, new_one = (record.get("identities", {}).get(place) for record in (old, new))
        there, here = _sides(before, after, place)
        if _seen(old_one, there) != _seen(new_one, here):
            found.append(Difference(place, there, here, _reason(old_one, new_one, there, here)))
    return found


def changed_places(old: Mapping[str, Any], new: Mapping[str, Any], node: Mapping[str, Any]) -> list[Difference]:
    """Where the identities of one node differ at two times."""
    return differences({"node": node, "identities": old}, {"node": node, "identities": new})


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted place, value) of all that nested containers hold."""
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from flat(item, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, list | tuple) and value:
        for index, item in enumerate(value):
            yield from flat(item, f"{prefix}[{index}]")
    else:
        yield prefix, value


def _both(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [name for name in dict.fromkeys((*new, *old)) if old.get(name) != new.get(name)]


def _sides(old: Mapping[str, Any], new: Mapping[str, Any], name: str) -> tuple[str, str]:
    return str(old.get(name, MISSING)), str(new.get(name, MISSING))


def _seen(identity: Mapping[str, Any] | None, text: str) -> tuple[str, str]:
    """What a key sees in a place."""
    if identity is None or identity["kind"] == "hub":
        return "text", identity["hashed"] if identity else text
    return identity["kind"], identity["hashed"]


def _reason(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None, there: str, here: str) -> str:
    """Empty where the two texts say it."""
    if old is None or new is None or old["kind"] != new["kind"]:
        return f"{here} was found only {'there' if old else 'here'}" if there == here else ""
    kind, name = new["kind"], Path(here).name if there == here else f"{there} there, {here} here"
    if kind in ("file", "weights"):
        return f"content differs ({name})"
    if kind == "folder":
        return f"files in the folder differ by name, size or time of change ({name})"
    if kind == "hub":
        return f"{here} is revision {old['detail']['revision']} there, {new['detail']['revision']} here"
    (old_part, _, before), (part, _, after) = old["hashed"].partition(" "), new["hashed"].partition(" ")
    if part != old_part:
        return ""
    if kind == "ours":
        return f"VERSION of {part} is {before} there, {after} here"
    return f"source of {part} differs ({', '.join(_both(old['detail'], new['detail']))})"


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
