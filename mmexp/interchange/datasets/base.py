"""What converters share: reading raw files with their mistakes named, and writing JSON lines."""

import json
from pathlib import Path
from typing import Any

from mmexp.errors import UserError
from mmexp.files import replacing
from mmexp.interfaces import Converter

Record = dict[str, Any]


def convert(converter: Converter, raw: Path, out: Path) -> tuple[int, int]:
    """Write ``out`` as JSON lines; returns the number of records, and of those left out for an empty text.

    Raises:
        UserError: a raw file is missing or not what it should be; ``out`` is untouched then.
    """
    written = empty = 0
    with replacing(out) as temporary:
        with temporary.open("w", encoding="utf-8") as file:
            for record in converter.records(raw):
                if _is_empty(record):
                    empty += 1
                    continue
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                written += 1
        if not written:
            raise UserError(f"{raw}: no usable record; needed is a {converter.needs}")
    return written, empty


def _is_empty(record: Record) -> bool:
    return any(key in record and not record[key].strip() for key in ("question", "answer", "caption"))


def load_json(path: Path) -> Any:
    """Raises ``UserError`` for a file that is missing or not JSON."""
    if not path.is_file():
        raise UserError(f"no file '{path}'")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from error


def load_list(path: Path, key: str | None = None) -> list[Any]:
    """A list, or the list under ``key``. Raises ``UserError`` where there is none."""
    value = load_json(path)
    if key is not None:
        value = field(value, key, str(path))
    if not isinstance(value, list):
        raise UserError(f"{path}: {f'{key} is' if key else 'holds'} a {type(value).__name__}, not a list")
    return value


def field(record: Any, key: str, where: str) -> Any:
    """Raises ``UserError`` where the record lacks the key."""
    if not isinstance(record, dict) or key not in record:
        raise UserError(f"{where}: no '{key}'; is this another version of the dataset?")
    return record[key]
