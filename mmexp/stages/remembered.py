"""Fingerprints that are kept in the store, so that a large file is read once and not by every command.

A file of JSON lines to which any process appends, each line by one write; of two lines on one thing the later holds.
"""

import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from mmexp.files import FINGERPRINTS_FILE


class Remembered:
    """What earlier commands found out.

    Args:
        folder: the store; None remembers nothing.
        create: make the folder where it is not there; otherwise nothing is written then.
    """

    def __init__(self, folder: Path | None, *, create: bool = False) -> None:
        self.path = folder / FINGERPRINTS_FILE if folder else None
        self.create = create

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """What was noted of a thing the last time."""
        return self._lines.get((kind, name))

    def put(self, kind: str, name: str, facts: Mapping[str, Any]) -> None:
        """Note it; a store that cannot be written is no reason to fail."""
        entry = {"kind": kind, "name": name, **facts}
        if self.path is None or self._lines.get((kind, name)) == entry:
            return
        self._lines[kind, name] = entry
        try:
            if self.create:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError:
            return
        try:
            os.write(file, (json.dumps(entry) + "\n").encode())
        except OSError:
            pass
        finally:
            os.close(file)

    @cached_property
    def _lines(self) -> dict[tuple[str, str], dict[str, Any]]:
        try:
            text = self.path.read_text(encoding="utf-8") if self.path else ""
        except OSError:
            text = ""
        found = {}
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                found[entry["kind"], entry["name"]] = entry
            except (ValueError, KeyError, TypeError):
                continue  # half a line, of a process that was killed or a disk that was full
        return found
