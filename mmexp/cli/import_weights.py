"""``mmexp import``: weights of others in the form of a finished stage, for a stage's ``init_from``."""

from collections.abc import Sequence
from pathlib import Path

from mmexp.errors import UserError, nearest

HELP = """\
mmexp import honeybee CKPT OUT      the projector of a released Honeybee checkpoint (a file or folder)

OUT is a new folder. Finetune from it with, for example:
  mmexp run experiments=honeybee_c --scale paper recipe.stages.finetune.init_from=OUT
"""
KINDS = ("honeybee",)


def main(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h"):
        print(HELP, end="")
        return 0
    if arguments[0] not in KINDS:
        raise UserError(f"import: no importer '{arguments[0]}'; {nearest(arguments[0], KINDS)}")
    if len(arguments) != 3:
        raise UserError(f"import: honeybee CKPT OUT are needed, not {len(arguments)} words; see mmexp import --help")
    from mmexp.interchange.honeybee import import_projector

    kind, count = import_projector(Path(arguments[1]), Path(arguments[2]))
    print(f"{arguments[2]}: {kind} projector, {count:,} parameters")
    return 0
