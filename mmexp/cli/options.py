"""Options of a config group that a command takes by name, without composing a whole config."""

from typing import Any

from mmexp.config.folders import SCALES, headline, options
from mmexp.errors import UserError, nearest

ANY_SCALE = SCALES[0]


def help_lines(group: str) -> str:
    """The group's options, a line each."""
    there = options(group, ANY_SCALE)
    width = max(map(len, there))
    return "\n".join(f"  {name:<{width}}  {headline(path)}" for name, path in there.items())


def load_option(group: str, name: str, command: str) -> dict[str, Any]:
    """The node in ``conf/<group>/<name>.yaml``, the user's own file first.

    Raises:
        UserError: no such option, or a file that is not a mapping.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    there = options(group, ANY_SCALE)
    if name not in there:
        raise UserError(f"{command}: no {group} '{name}'; {nearest(name, there)}")
    try:
        node = OmegaConf.to_container(OmegaConf.load(there[name]), resolve=True)
    except (OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{there[name]}: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(node, dict):
        raise UserError(f"{there[name]}: must be a mapping with _target_")
    return {str(key): value for key, value in node.items()}
