"""Errors of Hydra and OmegaConf, as one line that names the key and the nearest valid one."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mmexp.config.folders import OF_COMMANDS, groups, options, search_folders
from mmexp.config.hydra_session import hydra_open
from mmexp.errors import UserError, nearest

MAX_LENGTH = 300
LAUNCHERS = "hydra/launcher"


@contextmanager
def user_errors(overrides: Sequence[str], scale: str) -> Iterator[None]:
    """Turns what Hydra and OmegaConf raise while composing or resolving into ``UserError``."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        yield
    except YAMLError as error:
        raise UserError(f"not YAML: {_one_line(str(error))}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"a config file is not UTF-8: {_not_utf8(scale) or error}") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, overrides, scale)) from error
    except ValueError as error:
        if "Config group override" not in str(error):
            raise
        raise UserError(f"{_group_by_number(overrides, scale)}: must name an option, as text") from error


def _not_utf8(scale: str) -> str:
    """The first config file of the user's that cannot be read."""
    for folder in search_folders(scale):
        for path in folder.rglob("*.yaml"):
            try:
                path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                return str(path)
    return ""


def _group_by_number(overrides: Sequence[str], scale: str) -> str:
    """The override that chooses an option by a word that YAML reads as a number or a switch."""
    known = groups(scale)
    for text in overrides:
        group, _, option = text.lstrip("+").partition("=")
        if group in known and not option.isidentifier():
            return text
    return " ".join(overrides)


def explain(error: BaseException, overrides: Sequence[str], scale: str) -> str:
    """One line for a composition error."""
    text = f"{error}\n{error.__cause__ or ''}"
    for pattern, answer in ANSWERS:
        if found := re.search(pattern, text):
            return answer(found, overrides, scale)
    return _one_line(text.split("Config search path")[0])


def _no_option(found: re.Match[str], overrides: Sequence[str], scale: str) -> str:
    name = found[1]
    known = [LAUNCHERS, *groups(scale)]
    group = next((group for group in known if name.startswith(f"{group}/")), name.rpartition("/")[0])
    option = name.removeprefix(f"{group}/")
    there = options(group, scale)
    return f"{group}={option}: no such option at scale {scale}; {nearest(option, there)}"


def _no_key(found: re.Match[str], overrides: Sequence[str], scale: str) -> str:
    key = found[1].split("@")[0]
    if key in OF_COMMANDS:
        return f"{key}: is not part of a run; 'mmexp {OF_COMMANDS[key]} NAME ...' takes one by name"
    parent, _, name = key.rpartition(".")
    node = _node(parent, overrides, key, scale)
    names = [str(option) for option in node] if isinstance(node, dict) else []
    if not parent:
        names += groups(scale)
    if parent and not names:
        return _missing_parent(key, overrides, scale)
    return f"{key}: no such key; {nearest(name, names)}"


def _missing_parent(key: str, overrides: Sequence[str], scale: str) -> str:
    """A dotted key that is wrong before its last part: name the first wrong part."""
    parts = key.split(".")
    for end in range(1, len(parts)):
        parent = ".".join(parts[: end - 1])
        node = _node(parent, overrides, key, scale)
        names = [str(option) for option in node] if isinstance(node, dict) else []
        if parts[end - 1] not in names:
            return f"{key}: no such key; '{parts[end - 1]}': {nearest(parts[end - 1], names)}"
    return f"{key}: '{'.'.join(parts[:-1])}' is a value, so it has no keys"


def _node(path: str, overrides: Sequence[str], without: str, scale: str) -> Any:
    """The value at a dotted path of the config, without the override that is wrong."""
    import hydra
    from omegaconf import OmegaConf

    others = [override for override in overrides if override.lstrip("+~").split("=")[0].split("@")[0] != without]
    config: Any
    with hydra_open(scale):
        try:
            config = hydra.compose(scale, overrides=others, return_hydra_config=True)
        except Exception:  # the other overrides are wrong too: the default config has most names
            config = hydra.compose(scale, return_hydra_config=True)
    for part in path.split(".") if path else []:
        config = config.get(part) if OmegaConf.is_dict(config) else None
    return OmegaConf.to_container(config, resolve=False) if OmegaConf.is_config(config) else None


def _already(found: re.Match[str], overrides: Sequence[str], scale: str) -> str:
    return f"+{found[1]}: exists already; leave out the '+'"


def _not_there(found: re.Match[str], overrides: Sequence[str], scale: str) -> str:
    return _no_key(found, overrides, scale).replace(f"{found[1]}:", f"~{found[1]}:", 1)


def _ambiguous(found: re.Match[str], overrides: Sequence[str], scale: str) -> str:
    key, _, value = found[1].partition("=")
    return f"{found[1]}: several values need -m (one run each); a list is written {key}=[{value}]"


def _group_place(found: re.Match[str], overrides: Sequence[str], scale: str) -> str:
    return f"{found[1]}: not a valid place for a group; choose from: {found[2]}"


def _grammar(found: re.Match[str], overrides: Sequence[str], scale: str) -> str:
    bad = next((override for override in overrides if not _parses(override)), " ".join(overrides))
    return f"'{bad}' is not a valid override; write key=value, and quote a value with spaces or brackets"


def _parses(override: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def _interpolation(found: re.Match[str], overrides: Sequence[str], scale: str) -> str:
    return f"{found[2]}: refers to '{found[1]}', which does not exist"


def _resolution(found: re.Match[str], overrides: Sequence[str], scale: str) -> str:
    return f"{found[2]}: {found[1]}"


def _no_choice(found: re.Match[str], overrides: Sequence[str], scale: str) -> str:
    bad = next((override for override in overrides if found[1] in override), found[1])
    return f"{bad}: '{found[1]}' is not a group, so it cannot choose an option"


def _missing_value(found: re.Match[str], overrides: Sequence[str], scale: str) -> str:
    return f"{found[1]}: has no value (???); give one with {found[1]}=..."


Answer = Callable[[re.Match[str], Sequence[str], str], str]
ANSWERS: tuple[tuple[str, Answer], ...] = (
    (r"Could not (?:find|load) '([^']+)'", _no_option),
    (r"Could not override '([^']+)'\.?\n+Did you mean to override one of ([^?]+)\?", _group_place),
    (r"Could not override '([^']+)'", _no_key),
    (r"Could not append to config. An item is already at '([^']+)'", _already),
    (r"Multiple values for (\S+)\. To override", _already),
    (r"Could not delete (?:from config\. )?'([^']+)'", _not_there),
    (r"Ambiguous value for argument '([^']+)'", _ambiguous),
    (r"override_grammar", _grammar),
    (r"Interpolation key '([^']+)' not found\s+full_key: (\S+)", _interpolation),
    (r"raised while resolving interpolation: \"?(.+?)\"?\s+full_key: (\S+)", _resolution),
    (r"Missing mandatory value: (\S+)", _missing_value),
    (r"Error resolving interpolation '([^']+)'", _no_choice),
)
"""Pattern in Hydra 1.3's and OmegaConf 2.3's messages -> our line. The first that matches answers."""


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MAX_LENGTH]
