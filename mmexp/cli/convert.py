"""``mmexp convert``: a dataset from its official raw files to the JSON lines that the sources read."""

from collections.abc import Sequence
from pathlib import Path

from mmexp.cli.options import help_lines, load_option
from mmexp.errors import UserError

HELP = """\
mmexp convert NAME RAW OUT      RAW: folder of the raw files, OUT: the .jsonl file to write

"""
GROUP = "converter"


def main(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h"):
        print(HELP + help_lines(GROUP))
        return 0
    if len(arguments) != 3:
        raise UserError(f"convert: NAME RAW OUT are needed, not {len(arguments)} words; see mmexp convert --help")
    from mmexp.instantiate import instantiate
    from mmexp.interchange.datasets.base import convert
    from mmexp.interfaces import Converter

    name, raw, out = arguments[0], Path(arguments[1]), Path(arguments[2])
    converter: Converter = instantiate(load_option(GROUP, name, "convert"), GROUP, expect=Converter)
    if not raw.is_dir():
        raise UserError(f"convert: no folder '{raw}'; needed is a {converter.needs}")
    written, empty = convert(converter, raw, out)
    print(f"{out}: {written:,} records" + (f"; {empty:,} with an empty text left out" if empty else ""))
    return 0
