"""Records of a JSON list or a JSON-lines file, read one at a time: in memory are only their offsets."""

import json
import re
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np

from mmexp.data.bad_samples import BadSample
from mmexp.errors import UserError

SPACE = re.compile(r"[\s]*")


class RecordFile:
    """A file of JSON objects; a list or one object per line, told apart by the first character.

    Args:
        path: the file.
        dataset: whose it is, for messages.

    Raises:
        UserError: no such file, nothing in it, or a list that is not valid JSON. Broken lines are found when read.
    """

    def __init__(self, path: Path, dataset: str) -> None:
        if not path.is_file():
            raise UserError(f"dataset '{dataset}': annotations: no such file '{path}'")
        self.path = path
        with path.open("rb") as file:
            self.is_list = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
        spans = _list_spans(path) if self.is_list else _line_spans(path)
        if not spans:
            raise UserError(f"dataset '{dataset}': annotations: '{path}' contains no records")
        self._spans = np.array(spans, dtype=np.int64)  # (n, 3): start, end, line or index

    def __len__(self) -> int:
        return len(self._spans)

    def origin(self, index: int) -> str:
        """``file:line`` or ``file[index]``."""
        place = self._spans[index, 2]
        return f"{self.path}[{place}]" if self.is_list else f"{self.path}:{place}"

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises ``BadSample`` where the record is not a JSON object."""
        start, end, _ = self._spans[index].tolist()
        with self.path.open("rb") as file:
            file.seek(start)
            text = file.read(end - start)
        try:
            record = json.loads(text)
        except ValueError as error:
            raise BadSample(self.origin(index), f"not valid JSON: {error}") from error
        if not isinstance(record, dict):
            raise BadSample(self.origin(index), f"must be a JSON object, not {type(record).__name__}")
        return record


def _line_spans(path: Path) -> list[tuple[int, int, int]]:
    spans, start = [], 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                spans.append((start, start + len(line), number))
            start += len(line)
    return spans


def _list_spans(path: Path) -> list[tuple[int, int, int]]:
    """Latin-1 has one character per byte and the same ASCII, so offsets in the text are offsets in the file."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as mapped:
        text = str(mapped, "latin-1")
    decode = json.JSONDecoder().raw_decode
    spans: list[tuple[int, int, int]] = []
    at = _skip_space(text, text.index("[") + 1)
    while not text.startswith("]", at):
        if spans:
            if not text.startswith(",", at):
                raise UserError(f"{path}[{len(spans)}]: ',' or ']' is missing before byte {at}")
            at = _skip_space(text, at + 1)
        try:
            _, end = decode(text, at)
        except ValueError as error:
            raise UserError(f"{path}[{len(spans)}]: not valid JSON: {error}") from error
        spans.append((at, end, len(spans)))
        at = _skip_space(text, end)
    return spans


def _skip_space(text: str, at: int) -> int:
    return SPACE.match(text, at).end()  # type: ignore[union-attr]


def text_of(record: dict[str, Any], key: str, origin: str, where: str = "") -> str:
    """The string under ``key``, without surrounding white space.

    Args:
        where: place inside the record, for messages, with a space at its end.

    Raises:
        BadSample: it is missing or not a string.
    """
    value = record.get(key)
    if not isinstance(value, str):
        problem = "is missing" if key not in record else f"must be text, not {type(value).__name__}"
        raise BadSample(origin, f"{where}key '{key}' {problem}")
    return value.strip()


def optional_text(record: dict[str, Any], key: str, origin: str) -> str | None:
    """As ``text_of``; None where the key is missing, null or empty."""
    return text_of(record, key, origin) or None if record.get(key) is not None else None


def checked_folder(folder: str | Path, dataset: str) -> Path:
    """Raises ``UserError`` where there is no such folder."""
    path = Path(folder)
    if not path.is_dir():
        raise UserError(f"dataset '{dataset}': image_folder: no such folder '{path}'")
    return path
