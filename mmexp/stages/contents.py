"""What files and folders hold, as hashes that do not change when they are moved."""

import hashlib
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from mmexp.files import SHARD_COUNTS_FILE

CHUNK = 8 << 20
OVERLAP = 1 << 16
"""Bytes of a chunk that are looked at again with the next one, for keys that it cuts in two."""
RECORDS = (".json", ".jsonl")
IMAGE = re.compile(rb'"image"\s*:\s*(?:"((?:[^"\\]|\\.)*)"|([^"n\s]))')
VIDEO = re.compile(rb'"video"\s*:')
MAX_FOLDERS = 10_000
WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth")
SAMPLED_FROM = 64 << 20
"""Bytes. Weights of this size and more are hashed in samples."""
SAMPLES, SAMPLE = 64, 256 << 10
BY_CONTENT = (*WEIGHTS, ".json", ".txt", ".model", ".jinja", ".tiktoken")


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file's content."""

    digest: str
    folders: tuple[str, ...] | None = None
    """Of annotations: the folders of all images that they name, relative, sorted; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Names, sizes and times of change of the files below a folder."""

    digest: str
    count: int
    """Files."""
    times: Mapping[str, int]
    """Folder, relative -> its time of change in ns: as long as these stay, no file has come or gone."""


def file_content(path: str) -> FileContent:
    """All bytes of a file, or samples of large weights. Raises ``OSError``."""
    size = os.stat(path).st_size
    if path.endswith(WEIGHTS) and size >= SAMPLED_FROM:
        return FileContent(_sampled(path, size))
    digest = hashlib.sha256()
    folders: set[str] | None = set() if path.lower().endswith(RECORDS) else None
    rest = b""
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            if folders is not None:
                folders = _add_folders(folders, rest + chunk)
                rest = (rest + chunk)[-OVERLAP:]
    return FileContent(digest.hexdigest(), None if folders is None else tuple(sorted(folders)))


def weights_content(folder: str) -> str:
    """Of a checkpoint's folder: its files by name and content; what is neither weights nor text by name and size."""
    digest = hashlib.sha256()
    for name, entry in _files_below(folder):
        content = file_content(entry.path).digest if name.endswith(BY_CONTENT) else entry.stat().st_size
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def is_weights_folder(folder: str) -> bool:
    """Whether a checkpoint lies directly in a folder."""
    if os.path.isfile(os.path.join(folder, "config.json")):
        return True
    with os.scandir(folder) as found:
        return any(entry.name.endswith(WEIGHTS) for entry in islice(found, 1000))


def listing(folder: str, below: Iterable[str] | None = None) -> Listing:
    """Of all files below a folder, or of those directly in some folders of it. Hidden ones do not count.

    Args:
        below: relative folders; one that is not there counts as such.
    """
    digest, count, times = hashlib.sha256(), 0, {}
    for name, entries in _folders(folder) if below is None else _chosen(folder, below):
        times[name] = _time_of(os.path.join(folder, name))
        digest.update(f"{name}/{'' if times[name] else ' is missing'}\n".encode())
        for entry in entries:
            stat = entry.stat()
            digest.update(f"{entry.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
            count += 1
    return Listing(digest.hexdigest(), count, times)


def unchanged(folder: str, times: Mapping[str, int]) -> bool:
    """Whether no file came or went since a listing."""
    return all(_time_of(os.path.join(folder, name)) == time for name, time in times.items())


def _add_folders(folders: set[str] | None, data: bytes) -> set[str] | None:
    if folders is None or VIDEO.search(data):
        return None
    for match in IMAGE.finditer(data):
        if match[2] or len(folders) > MAX_FOLDERS:
            return None
        name = match[1].replace(b"\\/", b"/").decode("utf-8", errors="replace")
        if "\\" in name:
            return None
        if name:
            folders.add(posixpath.dirname(name))
    return folders


def _sampled(path: str, size: int) -> str:
    """The size, the head (of safetensors with all names and shapes), and blocks evenly spread over the file."""
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        if path.endswith(".safetensors"):
            digest.update(file.read(min(int.from_bytes(file.read(8), "little"), SAMPLED_FROM)))
        for number in range(SAMPLES):
            file.seek((size - SAMPLE) * number // (SAMPLES - 1))
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()


def _folders(folder: str) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """A folder and all below it, each with its files; links are followed, each folder is visited once."""
    seen = set()
    waiting = [""]
    while waiting:
        name = waiting.pop()
        where = os.stat(os.path.join(folder, name))
        if (where.st_dev, where.st_ino) in seen:
            continue
        seen.add((where.st_dev, where.st_ino))
        entries = _entries(os.path.join(folder, name))
        yield name, [entry for entry in entries if entry.is_file()]
        waiting += [os.path.join(name, entry.name) for entry in reversed(entries) if entry.is_dir()]


def _chosen(folder: str, below: Iterable[str]) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    for name in sorted(set(below)):
        path = os.path.join(folder, name)
        yield name, [entry for entry in _entries(path) if entry.is_file()] if os.path.isdir(path) else []


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        kept = (entry for entry in found if not entry.name.startswith(".") and entry.name != SHARD_COUNTS_FILE)
        return sorted(kept, key=lambda entry: entry.name)


def _files_below(folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    for name, entries in _folders(folder):
        yield from ((os.path.join(name, entry.name), entry) for entry in entries)


def _time_of(path: str) -> int:
    """0 where there is no such folder."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
