"""Where configs are, how they are composed, and every mistake in them as one line. Imports no Hydra by itself."""

from mmexp.config.composition import Composed, Composer, compose
from mmexp.config.folders import SCALES, check_scale, config_root, groups, options, search_folders
from mmexp.config.hydra_session import register_resolvers

__all__ = [
    "SCALES",
    "Composed",
    "Composer",
    "check_scale",
    "compose",
    "config_root",
    "groups",
    "options",
    "register_resolvers",
    "search_folders",
]
