"""``mmexp import``: weights of others in the form of a finished stage, for a stage's ``init_from``."""

from collections.abc import Sequence
from pathlib import Path

from mmexp.cli.options import help_lines, load_option
from mmexp.errors import UserError

HELP = """\
mmexp import NAME CKPT OUT      CKPT: a released checkpoint (a file or folder), OUT: a new folder

Finetune from it with, for example:
  mmexp run experiments=honeybee_c --scale paper recipe.stages.finetune.init_from=OUT

"""
GROUP = "importer"


def main(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h"):
        print(HELP + help_lines(GROUP))
        return 0
    node = load_option(GROUP, arguments[0], "import")
    if len(arguments) != 3:
        raise UserError(f"import: NAME CKPT OUT are needed, not {len(arguments)} words; see mmexp import --help")
    from mmexp.instantiate import instantiate
    from mmexp.interchange.importing import import_weights
    from mmexp.interfaces import Importer

    importer: Importer = instantiate(node, GROUP, expect=Importer)
    for part, count in import_weights(importer, Path(arguments[1]), Path(arguments[2])).items():
        print(f"{arguments[2]}: {part}, {count:,} parameters")
    return 0
