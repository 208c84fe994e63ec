"""What of a part's code a key sees: of ours name and VERSION, of a library's the name, of a user's own the source.

Nothing is imported or executed for it, so keys need no torch. docs/keys.md says what follows for users.
"""

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmexp.config.source_files import ModuleSource, class_version, find_class, module_file, packages_of, read_module

OURS = "mmexp"
LIBRARIES = ("torch", "torchvision", "lightning", "timm", "transformers", "optuna")
"""Their parts are known by name; a run records their versions."""
INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Folders of installed packages."""
DEFAULT_VERSION = 1
SHOWN = 12
"""Letters of a file's hash in a record."""


@dataclass(frozen=True)
class Identity:
    """What stands in the hashed node in the place of a text."""

    kind: str
    """``ours``, ``own``, ``file``, ``folder``, ``weights`` or ``hub``."""
    hashed: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    """For messages: of an own part, file name -> hash of its text. Not in the key."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def part_identity(target: str) -> Identity | None:
    """Of the class or function that ``target`` names; None for a library's, and for one that cannot be found.

    Args:
        target: dotted path, as in ``_target_``.
    """
    module, _, name = target.rpartition(".")
    root = target.split(".")[0]
    if not module or root in LIBRARIES or root in sys.stdlib_module_names:
        return None
    found = find_class(module, name)
    if root == OURS:
        if found is None:
            return None
        return Identity("ours", f"{found[1]} {class_version(*found) or DEFAULT_VERSION}")
    return _own(module, found[1] if found else name, found[0] if found else module)


def _own(module: str, name: str, written_in: str) -> Identity | None:
    """``written_in``: the module in which the class is written, which may be another one than ``module``."""
    sources = own_sources(module)
    if not sources:
        return None
    files: dict[str, str] = {}
    for path, source in sorted(sources.items(), key=lambda item: (item[0].name, str(item[0]))):
        if not source.is_blank:
            files[_free_name(path, files)] = source.digest
    versions = _versions_of_ours(sources.values())
    structure = _structure(written_in, sources)
    text = "\n".join([*structure, *(f"{part} {number}" for part, number in sorted(versions.items()))])
    shown = {file: digest[:SHOWN] for file, digest in files.items()}
    return Identity("own", f"{name} {hashlib.sha256(text.encode()).hexdigest()}", {**shown, **versions})


def _structure(written_in: str, sources: Mapping[Path, ModuleSource]) -> list[str]:
    """Hashes of the files in the order in which they import each other, from that of the class on.

    No name is in it, so that moving files changes nothing; two helpers that change places do.
    """
    numbers: dict[Path, int] = {}
    lines: list[str] = []

    def visit(name: str) -> None:
        path = module_file(name)
        source = sources.get(path) if path is not None else None
        if path is None or source is None or source.is_blank:
            return
        if path in numbers:
            lines.append(f"again {numbers[path]}")
            return
        numbers[path] = len(numbers)
        lines.append(source.digest)
        for imported in source.imports:
            for other in (*packages_of(imported), imported):
                visit(other)
        lines.append("end")

    for name in (*packages_of(written_in), written_in):
        visit(name)
    return lines


def own_sources(module: str) -> dict[Path, ModuleSource]:
    """A module's file and those of all that it imports from the same folder tree, itself or through others.

    The tree is the folder in which the module's outermost package lies, and the working directory; of an installed
    package only the package itself.
    """
    roots = _roots(module)
    found: dict[Path, ModuleSource] = {}
    waiting, seen = [*packages_of(module), module], set()
    while waiting:
        name = waiting.pop()
        if name in seen or _is_foreign(name):
            continue
        seen.add(name)
        path, source = module_file(name), read_module(name)
        if path is not None and source is not None and path not in found and _is_below(path, roots):
            found[path] = source
            waiting += [other for imported in source.imports for other in (*packages_of(imported), imported)]
    return found


def _is_foreign(name: str) -> bool:
    root = name.split(".")[0]
    return not root or root in (OURS, *LIBRARIES) or root in sys.stdlib_module_names


def _roots(module: str) -> list[str]:
    path = module_file(module)
    if path is None:
        return []
    depth = len(module.split(".")) - (path.name != "__init__.py")
    top = os.path.realpath(path.parents[depth])
    if Path(top).name in INSTALLED:
        return [os.path.realpath(path.parents[depth - 1] if depth else path)]
    return [os.path.abspath(path.parents[depth]), top, os.getcwd(), os.path.realpath(os.getcwd())]


def _is_below(path: Path, roots: list[str]) -> bool:
    """A link counts where it stands and where it leads to."""
    for place in (Path(os.path.abspath(path)), Path(os.path.realpath(path))):
        for root in roots:
            if place == Path(root) or place.is_relative_to(root):
                return not INSTALLED.intersection(place.relative_to(root).parts)
    return False


def _versions_of_ours(sources: Iterable[ModuleSource]) -> dict[str, int]:
    """Class of ours that an own module imports -> VERSION, where it has one."""
    versions: dict[str, int] = {}
    for source in sources:
        for dotted in source.imported.values():
            owner, _, name = dotted.rpartition(".")
            version = class_version(owner, name) if owner.split(".")[0] == OURS else None
            if version is not None:
                versions[name] = version
    return versions


def _free_name(path: Path, taken: Mapping[str, str]) -> str:
    name, part = path.name, path.parent
    while name in taken:
        name, part = f"{part.name}/{name}", part.parent
    return name
