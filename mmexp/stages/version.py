"""The version number of a stage's code, read from its source: keys of a whole sweep need no torch."""

import ast
import importlib
import importlib.util
from functools import cache
from pathlib import Path

from mmexp.errors import UserError, nearest
from mmexp.instantiate import check_name

CONSTANT = "VERSION"


@cache
def version_of(target: str, key: str = "_target_") -> int:
    """``VERSION`` of the class that ``target`` names.

    Read from the class body in the module's source; a class that is imported there, or inherits or computes its
    version, is imported.

    Args:
        target: dotted path of a class.
        key: config key, for messages.

    Raises:
        UserError: no such module or class, or it has no integer ``VERSION``.
    """
    check_name(target, key.removesuffix("._target_"))
    module, _, name = target.rpartition(".")
    body = _module_body(module, key)
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    imported = {alias.asname or alias.name for node in body if isinstance(node, ast.ImportFrom) for alias in node.names}
    if name not in classes and name not in imported:
        raise UserError(f"{key}: {module} has no class '{name}'; {nearest(name, classes)}")
    version = _literal(classes[name]) if name in classes else None
    if version is None:
        version = getattr(getattr(importlib.import_module(module), name), CONSTANT, None)
    if not isinstance(version, int):
        raise UserError(f"{key}: {target} is no stage, it has no whole number VERSION")
    return version


def _module_body(module: str, key: str) -> list[ast.stmt]:
    try:
        spec = importlib.util.find_spec(module) if module else None
    except ModuleNotFoundError as error:
        raise UserError(f"{key}: no module '{error.name}'") from None
    if spec is None or spec.origin is None:
        raise UserError(f"{key}: no module '{module}'")
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body


def _literal(node: ast.ClassDef) -> int | None:
    for statement in node.body:
        if isinstance(statement, ast.Assign):
            targets: list[ast.expr] = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        else:
            continue
        named = any(isinstance(target, ast.Name) and target.id == CONSTANT for target in targets)
        if named and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, int):
            return statement.value.value
    return None
