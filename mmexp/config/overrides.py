"""Overrides as Hydra reads and writes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmexp.errors import UserError


def parse(arguments: Sequence[str], where: str = "") -> list[Any]:
    """Hydra's own reading of overrides; ``where`` they stand, for messages. Raises ``UserError``."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser, parsed = OverridesParser.create(), []
    for text in arguments:
        try:
            parsed.append(parser.parse_override(text))
        except (HydraException, ValueError):
            place = f"{where}: " if where else ""
            raise UserError(f"{place}'{text}' is not a valid override; write key=value") from None
    return parsed


def as_text(value: Any) -> str:
    """A YAML value as the right side of an override."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(as_text(item) for item in value)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_text(item)}" for key, item in value.items()) + "}"
    return str(value)


def key_of(text: str) -> str:
    """The key that an override sets."""
    return text.lstrip("+~").split("=")[0].split("@")[0]
