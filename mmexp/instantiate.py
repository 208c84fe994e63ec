"""The one door between config and code: ``_target_`` to object, with mistakes named by config key."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmexp.errors import UserError, nearest

ALLOWED_PREFIXES: tuple[str, ...] = ("mmexp.", "torch.", "lightning.", "timm.", "transformers.", "optuna.")
"""Modules that a config may name; the config's ``allow_targets`` adds to them."""


def locate(target: str, key: str, allow: Sequence[str] = ()) -> Callable[..., Any]:
    """The class or function behind ``_target_``.

    Raises:
        UserError: not in an allowed module, or not there (with the nearest name).
    """
    if not target.startswith((*ALLOWED_PREFIXES, *allow)):
        raise UserError(f"{key}._target_: '{target}' is outside {', '.join(ALLOWED_PREFIXES)}; add it to allow_targets")
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(f"{key}._target_: no module '{error.name}'") from error
    if not hasattr(module, name):
        raise UserError(f"{key}._target_: {module_name} has no '{name}'; {nearest(name, dir(module))}")
    return getattr(module, name)


def bind(node: Mapping[str, Any], key: str, facts: Mapping[str, Any], allow: Sequence[str] = ()) -> Callable[..., Any]:
    """Check a node's arguments against the signature of its target, without calling it.

    Raises:
        UserError: ``_target_`` is missing, an argument is unknown or missing, or the config gives a build-time fact.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise UserError(f"{key}: has no _target_; it is {node!r}"[:200])
    target = locate(str(node["_target_"]), key, allow)
    parameters = inspect.signature(target).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return target
    given = [name for name in node if name != "_target_"]
    for name in given:
        if name in facts:
            raise UserError(f"{key}.{name}: is known when the model is built and cannot be set")
        if name not in parameters:
            options = [option for option in parameters if option not in facts]
            raise UserError(f"{key}.{name}: {node['_target_']} has no such argument; {nearest(name, options)}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in given and name not in facts:
            raise UserError(f"{key}.{name}: is missing; {node['_target_']} needs it")
    return target


def instantiate(node: Mapping[str, Any], key: str, *, allow: Sequence[str] = (), **facts: Any) -> Any:
    """Build the object that a config node describes.

    Args:
        node: ``_target_`` and its arguments, resolved.
        key: where the node stands in the config, for messages.
        allow: further module prefixes.
        facts: what is known only when the model is built; those that the target does not take are left out.

    Raises:
        UserError: see ``bind``, or raised by the constructor.
    """
    target = locate(str(node.get("_target_", "")), key, allow) if "_target_" in node else None
    taken = _taken(target, facts) if target else facts
    built = bind(node, key, taken, allow)
    return built(**{name: value for name, value in node.items() if name != "_target_"}, **taken)


def _taken(target: Callable[..., Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(target).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(facts)
    return {name: value for name, value in facts.items() if name in parameters}
