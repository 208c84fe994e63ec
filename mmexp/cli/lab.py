"""``mmexp lab build|show|check``: the drawn world, its experts and its language models."""

import importlib
from collections.abc import Sequence

from mmexp.cli.arguments import read_arguments
from mmexp.config import Composer
from mmexp.errors import UserError, nearest

HELP = """\
mmexp lab build [key=value ...]      make the lab's stages that are missing, one on each core
mmexp lab show  [key=value ...]      a sheet of drawn scenes with questions of every family: lab.png
mmexp lab check [key=value ...]      what each expert can and cannot see; no answer guessable from its question
mmexp lab ship  [key=value ...]      put the finished stages into the package (for developers)
"""
ACTIONS = {"build": "build", "show": "show", "check": "check", "ship": "build"}
"""Action -> module of the lab that has the function of that name."""


def main(arguments: Sequence[str]) -> int:
    found = read_arguments(arguments, max_names=1)
    if "--help" in found.flags or not found.names:
        print(HELP, end="")
        return 0
    action = found.names[0]
    if action not in ACTIONS:
        raise UserError(f"lab: no action '{action}'; {nearest(action, ACTIONS)}")
    with Composer("lab").open() as composer:
        config = composer.compose(found.overrides).resolved()
    from mmexp.stages.store import Store

    module = importlib.import_module(f"mmexp.lab.{ACTIONS[action]}")
    getattr(module, action)(config, Store.from_config(config))
    return 0
