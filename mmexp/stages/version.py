"""The version number of a stage's code, read from its source: keys of a whole sweep need no torch."""

import sys

from mmexp.config.part_identity import DEFAULT_VERSION, OURS
from mmexp.config.source_files import class_version, find_class, module_file, read_module
from mmexp.errors import UserError, nearest
from mmexp.instantiate import check_name


def version_of(target: str, key: str = "_target_") -> int:
    """``VERSION`` of the stage class that ``target`` names, its own or inherited.

    A user's own stage needs none: its key sees its source.

    Args:
        target: dotted path of a class.
        key: config key, for messages.

    Raises:
        UserError: no such module or class, or one of ours that is not a stage.
    """
    check_name(target, key.removesuffix("._target_"))
    module, _, name = target.rpartition(".")
    if module_file(module) is None:
        raise UserError(f"{key}: no module '{module}'")
    found = find_class(module, name)
    if found is None:
        source = read_module(module)
        raise UserError(f"{key}: {module} has no class '{name}'; {nearest(name, source.classes if source else ())}")
    version = class_version(*found)
    root = target.split(".")[0]
    if version is None and (root == OURS or root in sys.stdlib_module_names):
        raise UserError(f"{key}: {target} is not a stage: it has no integer VERSION")
    return DEFAULT_VERSION if version is None else version
