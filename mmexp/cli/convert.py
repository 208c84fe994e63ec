"""``mmexp convert``: a dataset from its official raw files to the JSON lines that the sources read."""

from collections.abc import Sequence
from pathlib import Path

from mmexp.errors import UserError, nearest
from mmexp.interchange.datasets import CONVERTERS, convert

HELP = """\
mmexp convert NAME RAW OUT      RAW: folder of the raw files, OUT: the .jsonl file to write

"""


def main(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h"):
        print(HELP + "\n".join(f"  {name:10} {converter.raw}" for name, converter in CONVERTERS.items()))
        return 0
    if len(arguments) != 3:
        raise UserError(f"convert: NAME RAW OUT are needed, not {len(arguments)} words; see mmexp convert --help")
    name, raw, out = arguments[0], Path(arguments[1]), Path(arguments[2])
    if name not in CONVERTERS:
        raise UserError(f"convert: no dataset '{name}'; {nearest(name, CONVERTERS)}")
    if not raw.is_dir():
        raise UserError(f"convert: no folder '{raw}'; needed is a {CONVERTERS[name].raw}")
    written, empty = convert(CONVERTERS[name], raw, out)
    print(f"{out}: {written:,} records" + (f"; {empty:,} with an empty text left out" if empty else ""))
    return 0
