"""The one door between config and code: ``_target_`` to object, with mistakes named by config key.

What a config may name is decided in two steps. *Before* anything is imported the name must begin with ``mmexp``, one
of its libraries, a module that lies in the working directory, or a prefix that the config lists in ``allow_targets``;
Python's own library and what runs code from elsewhere (``NEVER``) are refused whatever the config says. *After* the
import the object must be a class of the kind that its place expects.

``allow_targets`` belongs to a process, not to a call: ``allow_prefixes`` adds to it where a config is resolved, and
where a worker starts a stage, whose spec carries the prefixes.
"""

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

from mmexp.errors import UserError, nearest

ROOTS = ("mmexp", "torch", "lightning", "timm", "transformers", "optuna")
"""Packages that a config may name."""
NEVER = (
    "mmexp.cli",
    "torch.hub",
    "torch.package",
    "torch.distributed.run",
    "torch.distributed.launcher",
    "torch.utils.collect_env",
    "torch.utils.cpp_extension",
    "torch.utils.model_zoo",
    "transformers.dynamic_module_utils",
)
"""Parts of them that run or fetch code."""

UNKNOWN_ARGUMENT = re.compile(r"unexpected keyword argument|multiple values for (keyword )?argument")

Expected = type | str | tuple["type | str", ...]
"""What a place wants of a class: to be a subclass, to have what a Protocol names, or an attribute; or several."""

_allowed: set[str] = set()


def see_working_directory() -> None:
    """Let ``import`` find the modules of the working directory, after all others.

    Python puts the directory first under ``python -m``, where a user's ``numbers.py`` would hide a library; it is
    taken out there and appended. Left alone when ``PYTHONPATH`` names it.
    """
    here = os.getcwd()
    named = {os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    if here in named:
        return
    sys.path[:] = [entry for entry in sys.path if entry not in ("", here)] + [here]


def allow_prefixes(prefixes: Iterable[str] | None) -> None:
    """Further module prefixes (a config's ``allow_targets``) that this process may build from."""
    _allowed.update(prefix.rstrip(".") for prefix in prefixes or ())


def check_name(target: str, key: str) -> None:
    """The guard before anything is imported. Raises ``UserError`` for a name that a config may not use."""
    root = target.partition(".")[0]
    if root in sys.stdlib_module_names:
        raise UserError(f"{key}._target_: '{target}' is of Python's own library, from which no config may build")
    if _under(target, NEVER):
        raise UserError(f"{key}._target_: '{target}' may run code from elsewhere, so no config may name it")
    if _under(target, (*ROOTS, *_allowed)):
        return
    if not _lies_here(root):
        hint = nearest(root, [*ROOTS, *_allowed, *_modules_here()])
        hint = hint if hint.startswith("did") else "to use an installed package, list it in allow_targets"
        raise UserError(
            f"{key}._target_: '{target}' is neither in {', '.join(ROOTS)} nor in a module of this folder; {hint}"
        )
    _check_not_hidden(root, target, key)


def locate(target: str, key: str, expect: Expected | None = None) -> type:
    """The class behind ``_target_``.

    Args:
        target: dotted path.
        key: where it stands in the config, for messages.
        expect: what the place wants of the class.

    Raises:
        UserError: not in an allowed module, not there (with the nearest name), a module that cannot be imported, not a
            class, or not one of the expected kind.
    """
    check_name(target, key)
    module_name, _, name = target.rpartition(".")
    module = _imported(module_name, target, key)
    try:
        found = getattr(module, name)
    except AttributeError:
        options = [option for option in dir(module) if not option.startswith("_")]
        raise UserError(f"{key}._target_: {module_name} has no '{name}'; {nearest(name, options)}") from None
    _check_class(found, target, key, _each(expect))
    return found


def bind(
    node: Mapping[str, Any], key: str, facts: Mapping[str, Any], expect: Expected | None = None
) -> Callable[..., Any]:
    """Check a node's arguments against the signature of its target, without calling it.

    Raises:
        UserError: ``_target_`` is missing, an argument is unknown or missing, or the config gives a build-time fact;
            see also ``locate``.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise UserError(f"{key}: has no _target_; it is {node!r}"[:200])
    target = locate(str(node["_target_"]), key, expect)
    parameters = _parameters(target)
    given = [name for name in node if name != "_target_"]
    for name in given:
        if name in facts:
            raise UserError(f"{key}.{name}: is known when the model is built and cannot be set")
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return target
    for name in given:
        if name not in parameters:
            options = [option for option in parameters if option not in facts]
            raise UserError(f"{key}.{name}: {node['_target_']} has no such argument; {nearest(name, options)}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in given and name not in facts:
            raise UserError(f"{key}.{name}: is missing; {node['_target_']} needs it")
    return target


def instantiate(node: Mapping[str, Any], key: str, *, expect: Expected | None = None, **facts: Any) -> Any:
    """Build the object that a config node describes.

    Args:
        node: ``_target_`` and its arguments, resolved.
        key: where the node stands in the config, for messages.
        expect: what the place wants: a base class, a Protocol (its methods are looked for in the class, its attributes
            in the built object), a name that the class must have, or several of these.
        facts: what is known only when the model is built; those that the target does not take are left out.

    Raises:
        UserError: see ``bind``, or raised by the constructor.
    """
    target = locate(str(node["_target_"]), key, expect) if isinstance(node, Mapping) and "_target_" in node else None
    taken = _taken(target, facts) if target else facts
    bound = bind(node, key, taken, expect)
    arguments = {name: value for name, value in node.items() if name != "_target_"}
    try:
        built = bound(**arguments, **taken)
    except TypeError as error:
        if not UNKNOWN_ARGUMENT.search(str(error)):
            raise
        raise UserError(f"{key}: {node['_target_']}: {error}") from error  # it passes **kwargs on
    _check_built(built, str(node["_target_"]), key, _each(expect))
    return built


def _parameters(target: Callable[..., Any]) -> Mapping[str, Any]:
    import inspect  # here, since every command imports this module

    return inspect.signature(target).parameters


def _taken(target: Callable[..., Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    parameters = _parameters(target)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(facts)
    return {name: value for name, value in facts.items() if name in parameters}


def _under(target: str, prefixes: Iterable[str]) -> bool:
    return any(target == prefix or target.startswith(f"{prefix}.") for prefix in prefixes)


def _lies_here(root: str) -> bool:
    """Whether the working directory has a module or package of this name."""
    here = Path.cwd()
    return root.isidentifier() and ((here / f"{root}.py").is_file() or (here / root).is_dir())


def _modules_here() -> list[str]:
    here = Path.cwd()
    packages = [path.parent.name for path in here.glob("*/__init__.py")]
    return [*packages, *(path.stem for path in here.glob("*.py"))]


def _check_not_hidden(root: str, target: str, key: str) -> None:
    """``import`` must find the module of the working directory, and not an installed one of the same name."""
    here = os.getcwd()
    if here not in sys.path:
        see_working_directory()
    spec = importlib.util.find_spec(root)  # of a top-level name: nothing is imported
    places = [spec.origin or "", *(spec.submodule_search_locations or ())] if spec else []
    if not any(Path(place).is_relative_to(here) for place in places):
        raise UserError(
            f"{key}._target_: '{target}': ./{root} is hidden by an installed module of that name; rename yours"
        )


def _imported(module_name: str, target: str, key: str) -> Any:
    if not module_name:
        raise UserError(f"{key}._target_: '{target}' must be a dotted path, module.Class")
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise UserError(f"{key}._target_: no module '{missing}'{_nearest_module(missing)}") from error
        raise UserError(f"{key}._target_: {module_name} imports '{missing}', which is not there") from error
    except (Exception, SystemExit) as error:  # whatever the user's module does when it is imported
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{key}._target_: importing {module_name} failed: {said}"[:300]) from error


def _nearest_module(missing: str) -> str:
    import pkgutil

    parent, _, name = missing.rpartition(".")
    places = getattr(sys.modules.get(parent), "__path__", ())
    found = nearest(name, [module.name for module in pkgutil.iter_modules(places)])
    return f"; {found}" if places else ""


def _each(expect: Expected | None) -> tuple[type | str, ...]:
    return () if expect is None else expect if isinstance(expect, tuple) else (expect,)


def _check_class(found: Any, target: str, key: str, expect: tuple[type | str, ...]) -> None:
    problem = ""
    if not isinstance(found, type):
        problem = f"is a {type(found).__name__}, not a class"
    for part in expect if not problem else ():
        if isinstance(part, str):
            problem = problem or ("" if hasattr(found, part) else f"has no '{part}'")
        elif _is_protocol(part):
            lacking = [name for name in _methods(part) if not any(name in vars(base) for base in found.__mro__)]
            problem = problem or (f"has no method '{lacking[0]}'" if lacking else "")
        elif not issubclass(found, part):
            problem = problem or f"does not inherit from {_name(part)}"
    if problem:
        raise UserError(f"{key}._target_: {target} {problem}{_needed(expect)}")


def _check_built(built: Any, target: str, key: str, expect: tuple[type | str, ...]) -> None:
    for part in expect:
        if isinstance(part, type) and _is_protocol(part):
            lacking = [name for name in _attributes(part) if not hasattr(built, name)]
            if lacking:
                raise UserError(f"{key}._target_: {target} sets no '{lacking[0]}'{_needed(expect)}")


def _needed(expect: tuple[type | str, ...]) -> str:
    names = [_name(part) for part in expect if isinstance(part, type)]
    if not names:
        return ""
    return f"; needed is a class that is a {' and a '.join(names)} (docs/extend.md)"


def _name(part: type) -> str:
    """``torch.nn.modules.module.Module`` is known as ``torch Module``."""
    return f"{part.__module__.partition('.')[0]} {part.__qualname__}"


def _is_protocol(part: type) -> bool:
    return bool(getattr(part, "_is_protocol", False))


def _methods(protocol: type) -> list[str]:
    own = f"{protocol.__qualname__}."
    return [name for name, value in vars(protocol).items() if isinstance(value, FunctionType) and _is_own(value, own)]


def _is_own(function: Any, own: str) -> bool:
    """Not one that ``typing`` has put into the class."""
    return str(function.__qualname__) == f"{own}{function.__name__}"


def _attributes(protocol: type) -> list[str]:
    properties = [name for name, value in vars(protocol).items() if isinstance(value, property)]
    return [*vars(protocol).get("__annotations__", {}), *properties]
