"""WebDataset shards of captioned images: tar files with ``KEY.jpg`` and ``KEY.txt`` (as img2dataset writes them).

Nothing is unpacked or loaded ahead: a shard's headers are read when it is first needed, a member when its sample is.
"""

import json
import os
import tarfile
from collections import OrderedDict
from pathlib import Path

import numpy as np

from mmexp.data.bad_samples import BadSample
from mmexp.data.order import SHARDS_OPEN
from mmexp.data.tar_members import TarMember, member_path, read_member
from mmexp.errors import UserError
from mmexp.files import SHARD_COUNTS_FILE, write_json
from mmexp.interfaces import Sample, Turn

IMAGES = ("jpg", "jpeg", "png", "webp")
SHARDS_KEPT = 2 * SHARDS_OPEN
"""Shards whose headers are kept in memory."""


class TarShards:
    """A folder of shards, read lazily and in the order of ``shard_sizes``' shards.

    How many samples a shard has is taken from img2dataset's ``NAME_stats.json`` ("successes"), else counted once and
    noted in ``mmexp_counts.json`` where the folder can be written to.

    Args:
        folder: with ``*.tar``, not below it.
        caption: extension of the captions, ``txt``.
        name: of the dataset in the mixture.

    Raises:
        UserError: no folder, no shard, a file that is not a tar file; on access ``BadSample`` with shard and key.
    """

    def __init__(self, *, folder: str, caption: str, name: str) -> None:
        self.name, self.caption = name, caption
        self.shards = sorted(Path(folder).glob("*.tar"))
        if not self.shards:
            raise UserError(f"dataset '{name}': folder: no .tar file in '{folder}'")
        self.shard_sizes = np.array(_counts(Path(folder), self.shards, name), dtype=np.int64)
        """Samples of each shard; what a balance needs to walk shard by shard."""
        self._ends = np.cumsum(self.shard_sizes)
        self._members: OrderedDict[int, list[dict[str, TarMember]]] = OrderedDict()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sample:
        number = int(np.searchsorted(self._ends, index, side="right"))
        shard = self.shards[number]
        place = index - int(self._ends[number] - self.shard_sizes[number])
        samples = self._samples(number)
        if place >= len(samples):
            raise BadSample(f"{shard}[{place}]", f"the shard has {len(samples)} samples, fewer than its count says")
        return self._sample(shard, place, samples[place])

    def _sample(self, shard: Path, place: int, members: dict[str, TarMember]) -> Sample:
        key = next(iter(members.values())).key
        origin = f"{shard}[{place}] ({key})"
        image = next((members[extension] for extension in IMAGES if extension in members), None)
        if image is None or self.caption not in members:
            raise BadSample(origin, f"has {', '.join(members)}; an image and a .{self.caption} are needed")
        text = read_member(member_path(shard, members[self.caption])).decode("utf-8", errors="replace").strip()
        if not text:
            raise BadSample(origin, "the caption is empty")
        return Sample(
            id=key,
            dataset=self.name,
            image=member_path(shard, image),
            turns=(Turn(question="", answer=text),),
            origin=origin,
        )

    def _samples(self, number: int) -> list[dict[str, TarMember]]:
        if number not in self._members:
            self._members[number] = shard_samples(self.shards[number], self.name)
            if len(self._members) > SHARDS_KEPT:
                self._members.popitem(last=False)
        self._members.move_to_end(number)
        return self._members[number]


def shard_samples(shard: Path, dataset: str) -> list[dict[str, TarMember]]:
    """Extension -> member of each sample, in the order of the file; only headers are read.

    As in WebDataset, a sample's members have the same name up to the first dot after the last slash.
    """
    samples: dict[str, dict[str, TarMember]] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                folder, _, base = member.name.rpartition("/")
                stem, dot, extension = base.partition(".")
                if member.isfile() and dot and stem:
                    key = f"{folder}/{stem}" if folder else stem
                    samples.setdefault(key, {})[extension.lower()] = TarMember(key, member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"dataset '{dataset}': '{shard}' is not a readable tar file: {error}") from error
    return list(samples.values())


def _counts(folder: Path, shards: list[Path], dataset: str) -> list[int]:
    noted_file = folder / SHARD_COUNTS_FILE
    noted = json.loads(noted_file.read_text()) if noted_file.is_file() else {}
    counts = {shard.name: _noted(shard, noted) for shard in shards}
    missing = [shard for shard in shards if counts[shard.name] is None]
    for shard in missing:
        counts[shard.name] = len(shard_samples(shard, dataset))
    if missing and os.access(folder, os.W_OK):
        write_json(noted_file, {name: [count, (folder / name).stat().st_size] for name, count in counts.items()})
    return [int(counts[shard.name] or 0) for shard in shards]


def _noted(shard: Path, noted: dict[str, list[int]]) -> int | None:
    """A noted count is valid as long as the size of the file has not changed."""
    count, size = noted.get(shard.name, (None, None))
    if size == shard.stat().st_size:
        return count
    stats = shard.with_name(f"{shard.stem}_stats.json")
    return int(json.loads(stats.read_text())["successes"]) if stats.is_file() else None
