"""What a key sees of data, weights and parts: hashes of what they hold, each made once."""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmexp.config.part_identity import Identity, part_identity
from mmexp.stages.contents import (
    FileContent,
    Listing,
    file_content,
    is_weights_folder,
    listing,
    unchanged,
    weights_content,
)
from mmexp.stages.remembered import Remembered

LARGE_FILE = 1 << 20
"""Bytes from which on a file's hash is kept in the store; smaller ones are read by every command."""
LARGE_FOLDER = 30_000
"""Files from which on a folder's listing is kept: it holds while no file comes or goes."""
SETTLED_NS = 2_000_000_000
"""What was changed so lately may change again within the resolution of the clock of its disk: it is not kept."""
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
MAX_PATH = 1024

_contents: dict[tuple[str, int, int], FileContent] = {}
"""(path, size, time of change) -> content, in this process."""


class Fingerprints:
    """Hashes of contents. One object serves one command: folders and own parts are looked at once in its life.

    Args:
        folder: the store, where what is large is remembered; None remembers nothing.
        create: make the folder where it is not there.
    """

    def __init__(self, folder: Path | None, *, create: bool = False) -> None:
        self.remembered = Remembered(folder, create=create)
        self._files: dict[tuple[str, int, int], FileContent] = {}
        self._parts: dict[str, Identity | None] = {}
        self._folders: dict[tuple[str, tuple[str, ...] | None], str] = {}
        self._weights: dict[str, str | None] = {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Fingerprints":
        """With the memory of the store that ``paths`` of a resolved config names."""
        store = (config.get("paths") or {}).get("store")
        return cls(Path(store) if store else None)

    def part(self, target: str) -> Identity | None:
        """See ``part_identity``."""
        if target not in self._parts:
            self._parts[target] = part_identity(target)
        return self._parts[target]

    def file(self, path: str) -> FileContent:
        """Content of a file; raises ``OSError``."""
        path = os.path.abspath(path)
        stat = os.stat(path)
        place = (path, stat.st_size, stat.st_mtime_ns)
        if place not in self._files:
            self._files[place] = _contents.get(place) or self._read(*place)
        return self._files[place]

    def folder(self, path: str, below: tuple[str, ...] | None) -> str:
        """Names, sizes and times of a folder's files; raises ``OSError``.

        Args:
            below: only what lies directly in these folders of it, relative.
        """
        place = (os.path.abspath(path), below)
        if place not in self._folders:
            self._folders[place] = self._listed(*place)
        return self._folders[place]

    def weights(self, path: str) -> str | None:
        """Content of a checkpoint's folder; None where it is none. Raises ``OSError``."""
        path = os.path.abspath(path)
        if path not in self._weights:
            self._weights[path] = weights_content(path) if is_weights_folder(path) else None
        return self._weights[path]

    def hub(self, name: str) -> Identity | None:
        """Of a hub id whose revision the local cache knows; the revision that a store saw first goes without saying.

        So a model that is downloaded later does not change the keys of those that were planned without it.
        """
        revision = cached_revision(name)
        if revision is None:
            return None
        first = self.remembered.get("hub", name)
        if first is None:
            self.remembered.put("hub", name, {"revision": revision})
        usual = first is None or first["revision"] == revision
        return Identity("hub", name if usual else f"{name}@{revision}", {"revision": revision})

    def _read(self, path: str, size: int, changed: int) -> FileContent:
        kept = self.remembered.get("file", path)
        if kept and (kept["size"], kept["time"]) == (size, changed):
            folders = kept["folders"]
            content = FileContent(kept["digest"], None if folders is None else tuple(folders))
        else:
            content = file_content(path)
        if time.time_ns() - changed > SETTLED_NS:
            _contents[path, size, changed] = content
            if size >= LARGE_FILE:
                facts = {
                    "digest": content.digest,
                    "folders": None if content.folders is None else list(content.folders),
                }
                self.remembered.put("file", path, {"size": size, "time": changed, **facts})
        return content

    def _listed(self, path: str, below: tuple[str, ...] | None) -> str:
        name = path if below is None else f"{path} {list(below)}"
        kept = self.remembered.get("folder", name)
        if kept and unchanged(path, kept["times"]):
            return str(kept["digest"])
        found = listing(path, below)
        if found.count >= LARGE_FOLDER and _settled(found):
            self.remembered.put("folder", name, {"times": dict(found.times), "digest": found.digest})
        return found.digest


def cached_revision(name: str) -> str | None:
    """The commit that the local hub cache holds of a model's main branch; the hub itself is not asked."""
    if not HUB_ID.fullmatch(name):
        return None
    try:
        return (hub_cache() / f"models--{name.replace('/', '--')}" / "refs" / "main").read_text().strip() or None
    except OSError:
        return None


def hub_cache() -> Path:
    """Where huggingface_hub keeps what it has downloaded."""
    if given := os.environ.get("HF_HUB_CACHE"):
        return Path(given)
    caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("HF_HOME", f"{caches}/huggingface")).expanduser() / "hub"


def may_be_path(text: str) -> bool:
    """Whether a text looks like a path; whether there is such a thing is another question."""
    if not 0 < len(text) <= MAX_PATH or "\n" in text or "\0" in text or not Path(text).name:
        return False
    return os.sep in text or re.fullmatch(r"[^.][^/]*\.\w*[A-Za-z]\w*", text) is not None


def _settled(found: Listing) -> bool:
    return time.time_ns() - max(found.times.values(), default=0) > SETTLED_NS
