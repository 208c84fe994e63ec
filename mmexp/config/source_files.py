"""Modules as source text: where one is, which classes it has, what it imports. Nothing is imported or executed."""

import ast
import hashlib
import importlib.machinery
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

VERSION = "VERSION"
"""Class attribute: a whole number, raised when a class of ours computes something else than before."""


@dataclass(frozen=True)
class ClassSource:
    """A class as it is written down."""

    version: int | None
    """``VERSION`` of its own body."""
    bases: tuple[str, ...]
    """As they are written: ``Base`` or ``module.Base``."""


@dataclass(frozen=True)
class ModuleSource:
    """A module as it is written down; a text that is not Python has only a digest."""

    digest: str
    """sha256 of the text."""
    is_blank: bool
    classes: Mapping[str, ClassSource] = field(default_factory=dict)
    functions: frozenset[str] = frozenset()
    imported: Mapping[str, str] = field(default_factory=dict)
    """Local name -> dotted path."""
    imports: tuple[str, ...] = ()
    """Dotted paths that may be modules."""


def module_file(module: str) -> Path | None:
    """The ``.py`` file of a module, or of a package's ``__init__``; None where there is none."""
    top, *rest = module.split(".")
    spec = _top_level(top) if top else None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        place = Path(folder, *rest)
        for path in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if path.is_file():
                return path
    return None


def read_module(module: str) -> ModuleSource | None:
    """None where there is no such module, or it has no source."""
    path = module_file(module)
    if path is None:
        return None
    try:
        stat = path.stat()
        return _read(path, module, stat.st_size, stat.st_mtime_ns)
    except OSError:
        return None


def packages_of(module: str) -> list[str]:
    """The packages around a module, outermost first: importing it executes them."""
    parts = module.split(".")
    return [".".join(parts[:number]) for number in range(1, len(parts))]


def find_class(module: str, name: str) -> tuple[str, str] | None:
    """(module, name) of where a class or function is written, followed through ``from ... import ...``."""
    for _ in range(20):  # no circle is longer
        source = read_module(module)
        if source is None:
            return None
        if name in source.classes or name in source.functions:
            return module, name
        if name not in source.imported:
            return None
        module, _, name = source.imported[name].rpartition(".")
    return None


def class_version(module: str, name: str) -> int | None:
    """``VERSION`` of a class, its own or inherited; None where none has one."""
    found = find_class(module, name)
    source = read_module(found[0]) if found else None
    if found is None or source is None or found[1] not in source.classes:
        return None
    written = source.classes[found[1]]
    if written.version is not None:
        return written.version
    for base in written.bases:
        owner, base_name = _resolve(base, found[0], source)
        if owner.split(".")[0] != found[0].split(".")[0] or (owner, base_name) == found:
            continue  # a library's class
        version = class_version(owner, base_name)
        if version is not None:
            return version
    return None


def _resolve(base: str, module: str, source: ModuleSource) -> tuple[str, str]:
    first, _, rest = base.partition(".")
    if first in source.imported:
        base = f"{source.imported[first]}.{rest}" if rest else source.imported[first]
    elif not rest:
        base = f"{module}.{base}"
    owner, _, name = base.rpartition(".")
    return owner, name


def _top_level(name: str) -> importlib.machinery.ModuleSpec | None:
    """Where the import system would find a top-level module; the import path comes before what is imported already."""
    try:
        found = importlib.machinery.PathFinder.find_spec(name)
        return found or importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


@lru_cache(maxsize=4096)
def _read(path: Path, module: str, _size: int, _mtime_ns: int) -> ModuleSource:
    data = path.read_bytes()
    digest, is_blank = hashlib.sha256(data).hexdigest(), not data.strip()
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError):
        return ModuleSource(digest, is_blank)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    imported = dict(_imported(tree, package))
    return ModuleSource(
        digest,
        is_blank,
        {node.name: _class(node) for node in tree.body if isinstance(node, ast.ClassDef)},
        frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef)),
        imported,
        tuple(dict.fromkeys(_imports(tree, package))),
    )


def _class(node: ast.ClassDef) -> ClassSource:
    bases = tuple(ast.unparse(base) for base in node.bases if isinstance(base, ast.Name | ast.Attribute))
    return ClassSource(_version(node), bases)


def _version(node: ast.ClassDef) -> int | None:
    for statement in node.body:
        if isinstance(statement, ast.Assign):
            targets: list[ast.expr] = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        else:
            continue
        named = any(isinstance(target, ast.Name) and target.id == VERSION for target in targets)
        if named and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, int):
            return statement.value.value
    return None


def _imported(tree: ast.Module, package: str) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            origin = _absolute(node, package)
            yield from ((alias.asname or alias.name, f"{origin}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.asname, alias.name) for alias in node.names if alias.asname)


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            origin = _absolute(node, package)
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """The module that ``from ... import`` names, without leading dots."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    above = parts[: len(parts) - node.level + 1]
    return ".".join([*above, node.module] if node.module else above)
