"""``mmexp report NAME``: the report of a sweep, as far as it has got."""

from collections.abc import Sequence
from pathlib import Path

from mmexp.cli.arguments import Arguments, read_arguments
from mmexp.config import Composer
from mmexp.errors import UserError, nearest
from mmexp.files import LEDGER_FILE

HELP = """\
mmexp report NAME [--scale lab|paper] [key=value ...]

NAME and overrides as they were given to 'mmexp sweep', or the folder of a sweep.
"""


def main(arguments: Sequence[str]) -> int:
    found = read_arguments(arguments, max_names=1, name_first=True)
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
    from mmexp.sweeping.spec.command_line import read_command_line
    from mmexp.sweeping.spec.sweep import paths_of, sweep_folder

    name = found.names[0]
    line = read_command_line(found.overrides if "=" in name else found.of_sweep)
    with Composer(found.scale).open() as composer:
        paths = paths_of(composer.compose([text for text in line.plain if text.startswith("paths")]))
    root = sweep_folder(paths, found.scale, "")
    candidates = [Path(name), sweep_folder(paths, found.scale, line.name), sweep_folder(paths, found.scale, name)]
    for folder in candidates:
        if (folder / LEDGER_FILE).is_file():
            return folder
    wanted = name if "=" in name else line.name
    there = [path.parent.relative_to(root).as_posix() for path in root.rglob(LEDGER_FILE)]
    raise UserError(f"report: no sweep '{wanted}' has been run at scale {found.scale}; {nearest(wanted, there)}")
