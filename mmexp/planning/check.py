"""What can be wrong in a config before anything runs: arguments of every ``_target_``, then the model as a whole."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from mmexp.errors import UserError, nearest
from mmexp.instantiate import bind, locate
from mmexp.interfaces import Stage
from mmexp.stages.graph import stage_nodes


def check_trial(config: Mapping[str, Any]) -> None:
    """The validator of real sweeps: arguments, then the model on meta tensors.

    Raises:
        UserError: one line for each argument that does not fit, or the first thing that does not fit together.
    """
    from mmexp.planning.validate import validate

    check_arguments(config)
    validate(config)


def check_arguments(config: Mapping[str, Any]) -> None:
    """Bind constructors' arguments without calling them.

    Stages are bound whole. Other objects (datasets, benchmarks, templates, optimizers) may get facts when they are
    built, so only unknown arguments are mistakes there. What the model is made of is left to building the model.

    Raises:
        UserError: one line for each mistake.
    """
    lines = []
    for key, node in _targets(config):
        try:
            _check_names(node, key)
        except UserError as error:
            lines.append(str(error))
    for key, node in stage_nodes(config).values():
        try:
            bind({name: value for name, value in node.items() if name != "runtime"}, key, {}, Stage)
        except UserError as error:
            lines.append(str(error))
    if lines:
        raise UserError("\n".join(dict.fromkeys(lines)))


def _targets(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(config key, node) of what is built outside the model, once for each distinct node, by the shortest key."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    parts: list[tuple[str, Mapping[str, Any]]] = []
    _collect(config, "", found)
    stages = [node for _, node in stage_nodes(config).values()]
    for model in (config.get("model"), *(stage.get("model") for stage in stages)):
        _collect(model, "model", parts)
    seen = stages + [node for _, node in parts]
    for key, node in sorted(found, key=lambda item: item[0].count(".")):
        if node not in seen:
            seen.append(node)
            yield key, node


def _collect(value: Any, key: str, found: list[tuple[str, Mapping[str, Any]]]) -> None:
    if isinstance(value, Mapping):
        if "_target_" in value:
            found.append((key, value))
        for name, item in value.items():
            _collect(item, f"{key}.{name}" if key else str(name), found)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _collect(item, f"{key}[{index}]", found)


def _check_names(node: Mapping[str, Any], key: str) -> None:
    target = locate(str(node["_target_"]), key)
    parameters = inspect.signature(target).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in node:
        if name != "_target_" and name not in parameters:
            raise UserError(f"{key}.{name}: {node['_target_']} has no such argument; {nearest(name, parameters)}")
