"""Typed nodes of the config: pydantic reads them, and each of its errors becomes a line that names the config key."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from mmexp.errors import UserError, nearest


class Node(BaseModel):
    """A mapping of the config with known keys; values are not converted (``"1"`` is not an integer)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, node: Any) -> Any:
        """A key without a value (``rows:``) is as if it were not there."""
        return {key: value for key, value in node.items() if value is not None} if isinstance(node, Mapping) else node


NodeType = TypeVar("NodeType", bound=Node)
WORDS = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "model": "a mapping",
}
"""First word of pydantic's error type -> what is wanted."""


def read_node(kind: type[NodeType], node: Any, where: str) -> NodeType:
    """The typed form of a node.

    Args:
        kind: what it must be.
        node: plain containers.
        where: its config key, for messages.

    Raises:
        UserError: all that is wrong with it, a line for each mistake.
    """
    try:
        return kind.model_validate(node)
    except ValidationError as error:
        raise _user_error(error, kind, where) from None


def typed_arguments(target: Callable[..., Any], node: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A node's arguments in the types that the constructor's annotations want; names are checked elsewhere.

    Raises:
        UserError: all values of a wrong type, a line each.
    """
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    typed, lines = {}, []
    for name, value in node.items():
        if name not in hints:
            continue
        config = None if _is_model(hints[name]) else ConfigDict(strict=True, arbitrary_types_allowed=True)
        try:
            typed[name] = TypeAdapter(hints[name], config=config).validate_python(value)
        except ValidationError as error:
            lines.append(str(_user_error(error, hints[name], f"{where}.{name}")))
    if lines:
        raise UserError("\n".join(lines))
    return typed


def _user_error(error: ValidationError, kind: Any, where: str) -> UserError:
    return UserError("\n".join(dict.fromkeys(_line(kind, item, where) for item in error.errors())))


def _line(kind: Any, item: Any, where: str) -> str:
    key, known = where, []
    for place in item["loc"]:
        known = list(kind.model_fields) if _is_model(kind) else []
        key += "" if place == "[key]" else f"[{place}]" if isinstance(place, int) else f".{place}"
        kind = _inside(kind, place)
    match item["type"]:
        case "extra_forbidden":
            return f"{key}: no such key; {nearest(key.rpartition('.')[2], known)}"
        case "too_short":
            return f"{key}: needs at least {item['ctx']['min_length']} value"
        case "missing":
            return f"{key}: is missing"
        case "literal_error":
            options = re.findall(r"'([^']+)'", item["ctx"]["expected"])
            return f"{key}: no '{item['input']}'; {nearest(str(item['input']), options)}"
        case "value_error":
            return f"{key}: {item['ctx']['error']}"
    word = WORDS.get(item["type"].partition("_")[0])
    if word is None or not item["type"].endswith("_type"):
        return f"{key}: {item['input']!r} {item['msg'].replace('Input should', 'must').replace('should', 'must')}"
    model = f" {{{', '.join(f'{name}: ...' for name in kind.model_fields)}}}" if _is_model(kind) else ""
    return f"{key}: {item['input']!r} must be {word}{model}"


def _is_model(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, BaseModel)


def _inside(kind: Any, place: Any) -> Any:
    """The type of what stands at a place of a value of type ``kind``."""
    if _is_model(kind):
        return kind.model_fields[place].annotation if place in kind.model_fields else None
    arguments = [part for part in get_args(kind) if part is not type(None)]
    return arguments[-1] if arguments else None
