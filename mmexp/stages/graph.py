"""Stages of a config as a graph: references, order, and keys that hold everything a stage reads and nothing else.

Stages are the nodes under ``lab.stages`` and ``recipe.stages`` and the terminal node ``evaluation``. A string value
``stage:NAME`` or ``stage:NAME/sub/path`` makes NAME a parent. Only what the terminal stage needs is in the graph.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mmexp.errors import UserError, nearest
from mmexp.instantiate import allow_prefixes
from mmexp.stages.fingerprints import Fingerprints
from mmexp.stages.identity import PREFIX, identified
from mmexp.stages.version import version_of

TERMINAL = "evaluate"
"""Name of the last stage of a trial; its key is the trial's key."""
REFERENCE = re.compile(r"stage:(?P<name>[\w.-]+)(?P<sub>(?:/[\w][\w.-]*)*)")
KEY_LENGTH = 20
KEY_FORMAT = 2
"""How keys are made. 1 hashed the texts of a node as they are: modules of classes and paths of files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageSpec:
    """One stage, frozen: all that is needed to run it, in any process and at any time."""

    name: str
    where: str
    """Config key of its node."""
    node: Mapping[str, Any]
    """Resolved node without ``runtime``; references still by name."""
    runtime: Mapping[str, Any]
    """What does not change the result: devices, workers, loggers. Not in the key."""
    parents: Mapping[str, str]
    """Name -> key."""
    key: str
    identities: Mapping[str, Any] = field(default_factory=dict)
    """Place in the node -> what the key sees there instead of the text; as JSON."""
    allow: Sequence[str] = ()
    """Further module prefixes that ``_target_`` may name."""

    @property
    def is_terminal(self) -> bool:
        return self.name == TERMINAL

    @property
    def hashed(self) -> dict[str, Any]:
        """What the key is made from, as ``stage.json`` says it: the node, parents by key, and its identities."""
        node = _with_keys(self.node, self.parents)
        return {"key_format": KEY_FORMAT, "node": node, "identities": dict(self.identities)}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "StageSpec":
        """Of an earlier version of mmexp too: its key stays as it is."""
        known = {name: value[name] for name in cls.__dataclass_fields__ if name in value}
        return cls(**{**known, "allow": tuple(value["allow"])})


@dataclass(frozen=True, slots=True)
class Graph:
    """Stages in an order in which they can be run."""

    stages: Mapping[str, StageSpec]

    @property
    def key(self) -> str:
        """Key of the last stage: the trial's key where that is the evaluation."""
        return self.last.key

    @property
    def last(self) -> StageSpec:
        return list(self.stages.values())[-1]

    @property
    def keys(self) -> dict[str, str]:
        """Stage name -> key."""
        return {name: spec.key for name, spec in self.stages.items()}


def build_graph(config: Mapping[str, Any], target: str = TERMINAL, fingerprints: Fingerprints | None = None) -> Graph:
    """The graph of all that ``target`` needs, ``target`` last.

    Args:
        config: a whole config, resolved to plain containers.
        target: name of a stage.
        fingerprints: what was found out for other configs of the same command, so that it is found out once.

    Raises:
        UserError: an unknown or circular reference, two stages of one name, a node that is not a stage.
    """
    nodes = stage_nodes(config)
    if target not in nodes:
        raise UserError(f"no stage '{target}'; {nearest(target, nodes)}")
    allow = tuple(config.get("allow_targets") or ())
    fingerprints = fingerprints or Fingerprints.from_config(config)
    allow_prefixes(allow)
    done: dict[str, StageSpec] = {}
    for name in _ordered(target, nodes):
        done[name] = _spec(name, nodes[name], done, allow, fingerprints)
    return Graph(done)


def stage_nodes(config: Mapping[str, Any]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Name -> (config key, node) of every stage that a config has."""
    nodes: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for part in ("lab", "recipe"):
        for name, node in ((config.get(part) or {}).get("stages") or {}).items():
            if name in nodes or name == TERMINAL:
                raise UserError(f"{part}.stages.{name}: another stage has this name; choose another one")
            if node is not None:
                nodes[name] = (f"{part}.stages.{name}", node)
    if config.get("evaluation"):
        nodes[TERMINAL] = ("evaluation", config["evaluation"])
    for where, node in nodes.values():
        if not isinstance(node, Mapping) or "_target_" not in node:
            raise UserError(f"{where}: a stage needs a _target_")
    return nodes


def references(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """(stage name, config key) of every reference in a node.

    Raises:
        UserError: a string that begins like a reference and is none.
    """
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from references(item, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from references(item, f"{where}[{index}]")
    elif isinstance(value, str) and value.startswith(PREFIX):
        match = REFERENCE.fullmatch(value)
        if match is None:
            raise UserError(f"{where}: '{value}' is not a reference; write stage:NAME or stage:NAME/sub/path")
        yield match["name"], where


def replace_references(value: Any, replacement: Callable[[str, str], str]) -> Any:
    """The node with each reference replaced by ``replacement(name, sub)``; ``sub`` is empty or begins with a slash."""
    if isinstance(value, Mapping):
        return {name: replace_references(item, replacement) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace_references(item, replacement) for item in value]
    match = REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return replacement(match["name"], match["sub"]) if match else value


def stage_key(node: Any, parents: Mapping[str, str]) -> str:
    """Hash of an ``identified`` node without ``runtime``, and of its parents' keys.

    The order of keys counts: the order of encoders and datasets has a meaning, so sorting could make two trials one.
    """
    hashed = {"key_format": KEY_FORMAT, "node": _with_keys(node, parents)}
    text = json.dumps(hashed, separators=(",", ":"), allow_nan=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def _with_keys(node: Any, parents: Mapping[str, str]) -> Any:
    return replace_references(node, lambda name, sub: f"{PREFIX}{parents[name]}{sub}")


def _spec(
    name: str,
    found: tuple[str, Mapping[str, Any]],
    done: Mapping[str, StageSpec],
    allow: Sequence[str],
    fingerprints: Fingerprints,
) -> StageSpec:
    where, whole = found
    node = {key: value for key, value in whole.items() if key != "runtime"}
    parents = {parent: done[parent].key for parent, _ in references(node, where)}
    version_of(str(node["_target_"]), f"{where}._target_")
    hashed, identities = identified(node, fingerprints)
    return StageSpec(
        name=name,
        where=where,
        node=node,
        runtime=dict(whole.get("runtime") or {}),
        parents=parents,
        key=stage_key(hashed, parents),
        identities=identities,
        allow=allow,
    )


def _ordered(target: str, nodes: Mapping[str, tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Names of all that ``target`` needs, parents first."""
    order: list[str] = []
    path: list[str] = []

    def visit(name: str, where: str) -> None:
        if name not in nodes:
            raise UserError(f"{where}: there is no stage '{name}'; {nearest(name, nodes)}")
        if name in path:
            circle = " -> ".join([*path[path.index(name) :], name])
            raise UserError(f"{where}: stages wait for each other: {circle}")
        if name in order:
            return
        path.append(name)
        own, whole = nodes[name]
        for parent, key in references({k: v for k, v in whole.items() if k != "runtime"}, own):
            visit(parent, key)
        path.pop()
        order.append(name)

    visit(target, nodes[target][0])
    return order
