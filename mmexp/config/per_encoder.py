"""Stage templates: one stage in a recipe's file, one for each chosen encoder in the config (Eagle's pre-alignment).

A stage with ``per_encoder: true`` is a template. When a config is resolved, ``prealign`` becomes ``prealign_clip``,
``prealign_sam``, ...: each has one encoder in its ``model.encoders`` and reads nothing of the others, so its key is the
same whatever the encoder is combined with, and a search trains it once. A value ``stage:prealign`` elsewhere
becomes the list of all of them, in the encoders' order.
"""

from collections.abc import Mapping
from typing import Any

from mmexp.errors import UserError

MARK = "per_encoder"


def expand_stages(config: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved config whose ``recipe.stages`` has no templates.

    Raises:
        UserError: a template without encoders; a stage made from one has the name of another stage.
    """
    recipe = config.get("recipe") or {}
    stages: dict[str, Any] = {}
    made: dict[str, list[str]] = {}
    for name, node in (recipe.get("stages") or {}).items():
        if not (isinstance(node, Mapping) and node.get(MARK)):
            own = {key: value for key, value in node.items() if key != MARK} if isinstance(node, Mapping) else node
            copies = {name: own}
        else:
            copies = _copies(name, node)
            made[name] = list(copies)
        for copy, value in copies.items():
            if copy in stages:
                raise UserError(f"recipe.stages.{copy}: another stage has this name; choose another one")
            stages[copy] = value
    if not made:
        return dict(config)
    lists = {f"stage:{name}": [f"stage:{copy}" for copy in copies] for name, copies in made.items()}
    return {**_replaced(config, lists), "recipe": _replaced({**recipe, "stages": stages}, lists)}


def _copies(name: str, node: Mapping[str, Any]) -> dict[str, Any]:
    where = f"recipe.stages.{name}.{MARK}"
    model = node.get("model") or {}
    encoders = model.get("encoders")
    if not encoders:
        raise UserError(f"{where}: the stage is a template for each of its model.encoders, but has none")
    rest = {key: value for key, value in node.items() if key != MARK}
    return {
        f"{name}_{encoder}": {**rest, "model": {**model, "encoders": {encoder: part}}}
        for encoder, part in encoders.items()
    }


def _replaced(value: Any, lists: Mapping[str, list[str]]) -> Any:
    if isinstance(value, Mapping):
        return {key: _replaced(item, lists) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, lists) for item in value]
    return list(lists[value]) if isinstance(value, str) and value in lists else value
