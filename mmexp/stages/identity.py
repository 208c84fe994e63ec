"""A stage's node as its key sees it: parts by name and version or source, files and weights by content, not by path."""

import os
from collections.abc import Mapping
from typing import Any

from mmexp.config.part_identity import OURS, Identity
from mmexp.stages.contents import RECORDS
from mmexp.stages.fingerprints import Fingerprints, may_be_path

TARGET = "_target_"
PREFIX = "stage:"
"""Of a reference to another stage."""
Identities = dict[str, dict[str, Any]]
"""Dotted place in a node -> ``Identity`` as JSON."""


def identified(node: Any, fingerprints: Fingerprints) -> tuple[Any, Identities]:
    """The node with what is hashed in the place of the texts that have an identity, and these identities."""
    found: Identities = {}
    return _value(node, "", None, fingerprints, found), found


def dotted(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _value(value: Any, where: str, below: tuple[str, ...] | None, fingerprints: Fingerprints, found: Identities) -> Any:
    if isinstance(value, Mapping):
        return _mapping(value, where, fingerprints, found)
    if isinstance(value, list | tuple):
        return [_value(item, f"{where}[{index}]", below, fingerprints, found) for index, item in enumerate(value)]
    if not isinstance(value, str) or value.startswith(PREFIX):
        return value
    identity = _text(value, where, below, fingerprints)
    if identity is None:
        return value
    found[where] = identity.to_json()
    return identity.hashed if identity.kind == "hub" else {identity.kind: identity.hashed}


def _mapping(node: Mapping[str, Any], where: str, fingerprints: Fingerprints, found: Identities) -> dict[str, Any]:
    below = _folders_named(node, fingerprints)
    result = {key: _value(item, dotted(where, str(key)), below, fingerprints, found) for key, item in node.items()}
    if node.get("weights") == "hub" and isinstance(node.get("model_name"), str):  # timm names its models by their tag
        identity = fingerprints.hub(f"timm/{node['model_name']}")
        if identity is not None:
            found[dotted(where, "model_name")] = identity.to_json()
            if "@" in identity.hashed:
                result["model_name"] = identity.hashed
    return result


def _text(value: str, where: str, below: tuple[str, ...] | None, fingerprints: Fingerprints) -> Identity | None:
    if where.rpartition(".")[2] == TARGET:
        return fingerprints.part(value)
    if not may_be_path(value):
        return None
    try:
        return _content(value, below, fingerprints) or fingerprints.hub(value)
    except OSError:
        return None


def _content(path: str, below: tuple[str, ...] | None, fingerprints: Fingerprints) -> Identity | None:
    """Of a file or folder; None where there is none."""
    if os.path.isfile(path):
        return Identity("file", fingerprints.file(path).digest)
    if not os.path.isdir(path) or os.sep not in path:
        return None
    weights = fingerprints.weights(path)
    return Identity("weights", weights) if weights else Identity("folder", fingerprints.folder(path, below))


def _folders_named(node: Mapping[str, Any], fingerprints: Fingerprints) -> tuple[str, ...] | None:
    """Of a source of ours: the folders of all images that its annotations name.

    Only these are looked at, so that a folder that many datasets share (``MMEXP_DATA/coco``) can get another one. None
    where that is not known, and for a user's own source, which may read what it likes.
    """
    if not str(node.get(TARGET, "")).startswith(f"{OURS}."):
        return None
    names: set[str] = set()
    files = [text for text in node.values() if isinstance(text, str) and text.lower().endswith(RECORDS)]
    for path in files:
        try:
            folders = fingerprints.file(path).folders
        except OSError:
            folders = None
        if folders is None:
            return None
        names.update(folders)
    return tuple(sorted(names)) if files else None
