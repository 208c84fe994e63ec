"""``mmexp list [GROUP]``: what can be composed, a line each. Reads only the first comment of each file."""

from collections.abc import Sequence

from mmexp.cli.arguments import read_arguments
from mmexp.config.folders import TOP_GROUPS, groups, headline, options
from mmexp.errors import UserError, nearest

HELP = """\
mmexp list [GROUP] [--scale lab|paper]

Without a GROUP: all groups and their options. With one: its options, with what each is.
"""


def main(arguments: Sequence[str]) -> int:
    found = read_arguments(arguments, max_names=1)
    if "--help" in found.flags:
        print(HELP, end="")
    elif found.names:
        print(describe(found.names[0], found.scale))
    else:
        print(overview(found.scale))
    return 0


def describe(group: str, scale: str) -> str:
    """Options of one group, with their files' first lines. Raises ``UserError`` for an unknown group."""
    there = options(group, scale)
    if not there:
        raise UserError(f"list: no group '{group}'; {nearest(group, groups(scale))}")
    width = max(map(len, there))
    return "\n".join(f"{name:<{width}}  {headline(path)}".rstrip() for name, path in there.items())


def overview(scale: str) -> str:
    """Groups and the names of their options, what is run first."""
    names = [*TOP_GROUPS, *(name for name in groups(scale) if name not in TOP_GROUPS)]
    there = {name: list(options(name, scale)) for name in names}
    width = max(map(len, there))
    lines = [f"{name:<{width}}  {', '.join(found)}" for name, found in there.items() if found]
    return "\n".join([f"scale {scale}; a group in detail: mmexp list GROUP", "", *lines])
