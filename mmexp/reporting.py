"""``mmexp report NAME``: the report of a sweep, as far as it has got."""

from collections.abc import Sequence
from pathlib import Path

from mmexp.config import Composer
from mmexp.errors import UserError, nearest
from mmexp.front import Arguments, read_arguments
from mmexp.sweep import rewritten

HELP = """\
mmexp report NAME [--scale lab|paper] [key=value ...]

NAME and overrides as they were given to 'mmexp sweep', or the folder of a sweep.
"""


def main(arguments: Sequence[str]) -> int:
    found = read_arguments(arguments, max_names=1)
    if "--help" in found.flags:
        print(HELP, end="")
        return 0
    if not found.names:
        raise UserError("which sweep? mmexp report NAME")
    from rich.console import Console

    from mmexp.report.show import show_report

    show_report(find_sweep(found), Console())
    return 0


def find_sweep(found: Arguments) -> Path:
    """Folder of a sweep that has a ledger. Raises ``UserError`` with the nearest name."""
    from mmexp.sweeping.ledger import LEDGER
    from mmexp.sweeping.rows import NOT_IDENTITY, read_command_line
    from mmexp.sweeping.session import sweep_folder

    name = found.names[0]
    line = read_command_line(rewritten(found))
    places = [text for text in line.plain if text.split(".")[0] in NOT_IDENTITY and text.startswith("paths")]
    with Composer(found.scale).open() as composer:
        config = composer.compose(places).resolved()
    root = sweep_folder(config["paths"], found.scale, "")
    candidates = [
        Path(name),
        sweep_folder(config["paths"], found.scale, line.name),
        sweep_folder(config["paths"], found.scale, name),
    ]
    for folder in candidates:
        if (folder / LEDGER).is_file():
            return folder
    there = [path.parent.relative_to(root).as_posix() for path in root.rglob(LEDGER)]
    raise UserError(f"report: no sweep '{line.name}' has been run at scale {found.scale}; {nearest(line.name, there)}")
