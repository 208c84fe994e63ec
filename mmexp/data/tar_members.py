"""Members of uncompressed tar files as paths, ``SHARD.tar/!OFFSET+SIZE``, so that an image in one is an image path."""

import re
from dataclasses import dataclass
from pathlib import Path

MEMBER = re.compile(r"(?P<shard>.+\.tar)/!(?P<offset>\d+)\+(?P<size>\d+)")


@dataclass(frozen=True, slots=True)
class TarMember:
    """Where a member's bytes are, and its sample's key."""

    key: str
    offset: int
    size: int


def member_path(shard: Path, member: TarMember) -> Path:
    return shard / f"!{member.offset}+{member.size}"


def is_member(path: Path) -> bool:
    return path.name.startswith("!") and MEMBER.fullmatch(path.as_posix()) is not None


def read_member(path: Path) -> bytes:
    """The bytes. Raises ``OSError``."""
    match = MEMBER.fullmatch(path.as_posix())
    assert match is not None, path
    with open(match["shard"], "rb") as file:
        file.seek(int(match["offset"]))
        return file.read(int(match["size"]))
