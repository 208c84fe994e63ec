"""Captions in tar shards: read in place, walked through shard by shard, the same from any position on."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmexp.data.bad_samples import BadSample
from mmexp.data.balance import BySize, PerDataset
from mmexp.data.images import ImageReader
from mmexp.data.mixture import Mixture
from mmexp.data.order import SHARDS_OPEN, ShardWalk
from mmexp.data.sources.tar_shards import TarShards
from mmexp.errors import UserError
from mmexp.files import SHARD_COUNTS_FILE
from mmexp.model.resolution.resize import Resize


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_shard(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def write_shards(folder: Path, sizes: list[int]) -> list[str]:
    """As img2dataset writes them; captions are numbered through, and returned in order."""
    folder.mkdir(parents=True, exist_ok=True)
    captions: list[str] = []
    for shard, size in enumerate(sizes):
        members = []
        for place in range(size):
            key, caption = f"{shard:05d}{place:04d}", f"caption {len(captions)}"
            members += [(f"{key}.jpg", png(len(captions))), (f"{key}.txt", caption.encode()), (f"{key}.json", b"{}")]
            captions.append(caption)
        write_shard(folder / f"{shard:05d}.tar", members)
    return captions


def shards(folder: Path) -> TarShards:
    return TarShards(folder=str(folder), caption="txt", name="coyo")


def test_every_sample_in_place_with_its_own_image(tmp_path: Path) -> None:
    captions = write_shards(tmp_path, [3, 1, 4])
    source = shards(tmp_path)
    assert [source[index].turns[0].answer for index in range(len(source))] == captions
    reader = ImageReader(resolutions={"clip": Resize(image_size=8, mean=(0.5, 0.5, 0.5))}, features=None)
    for index in (0, 3, 7):
        sample = source[index]
        assert sample.image is not None
        assert reader.size(sample.image, sample.origin) == (8, 8)
        assert reader.read(sample.image, sample.origin).views["clip"].max() == index
    assert source[4].id == "000020000"
    assert source[4].origin.endswith("00002.tar[0] (000020000)")


def test_counts_are_taken_from_img2dataset_or_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path, [3, 2])
    (tmp_path / "00000_stats.json").write_text(json.dumps({"count": 9, "successes": 3, "status_dict": {}}))
    assert len(shards(tmp_path)) == 5
    assert json.loads((tmp_path / SHARD_COUNTS_FILE).read_text())["00001.tar"][0] == 2

    def fail(*_: object) -> None:
        raise AssertionError("counted again")

    monkeypatch.setattr("mmexp.data.sources.tar_shards.shard_samples", fail)
    assert len(shards(tmp_path)) == 5
    monkeypatch.undo()
    write_shard(tmp_path / "00001.tar", [("a.jpg", png(1)), ("a.txt", b"x" * 20000)])
    assert len(shards(tmp_path)) == 4, "another file of another size is counted again"


def test_broken_samples_and_shards_are_named(tmp_path: Path) -> None:
    write_shard(
        tmp_path / "0.tar",
        [("a.jpg", png(1)), ("b.jpg", b"no image"), ("b.txt", b"x"), ("c.jpg", png(1)), ("c.txt", b" ")],
    )
    source = shards(tmp_path)
    with pytest.raises(BadSample, match=r"0\.tar\[0\] \(a\): has jpg; an image and a \.txt are needed"):
        source[0]
    with pytest.raises(BadSample, match=r"0\.tar\[2\] \(c\): the caption is empty"):
        source[2]
    broken = source[1]
    reader = ImageReader(resolutions={}, features=None)
    with pytest.raises(BadSample, match=r"0\.tar\[1\] \(b\): image .* cannot be read"):
        reader.size(broken.image, broken.origin)  # type: ignore[arg-type]
    (tmp_path / "0_stats.json").write_text('{"successes": 4}')
    (tmp_path / SHARD_COUNTS_FILE).unlink()
    with pytest.raises(BadSample, match="the shard has 3 samples, fewer than its count says"):
        shards(tmp_path)[3]
    (tmp_path / "1.tar").write_bytes(b"x" * 2000)
    with pytest.raises(UserError, match=r"dataset 'coyo': '.*1\.tar' is not a readable tar file"):
        shards(tmp_path)
    with pytest.raises(UserError, match=r"folder: no \.tar file"):
        shards(tmp_path / "none")


SIZES = [7, 1, 30, 12, 5, 9, 9, 14, 3, 20, 8, 2, 11, 6, 1, 4, 17, 10, 13, 21]


def test_a_walk_takes_each_sample_once_and_few_shards_at_a_time() -> None:
    walk, total = ShardWalk("coyo", SIZES, seed=0), sum(SIZES)
    epochs = [walk.indices(epoch, np.arange(total)) for epoch in range(3)]
    for found in epochs:
        assert sorted(found.tolist()) == list(range(total))
    assert epochs[0].tolist() != epochs[1].tolist()
    shard_of = np.repeat(np.arange(len(SIZES)), SIZES)[epochs[0]]
    seen: list[set[int]] = []
    for shard in shard_of.tolist():
        if not seen or shard not in seen[-1]:
            if not seen or len(seen[-1]) == SHARDS_OPEN:
                seen.append(set())
            seen[-1].add(shard)
    assert len(seen) == -(-len(SIZES) // SHARDS_OPEN), "a shard is never opened again after its group"


def test_a_walk_has_no_state() -> None:
    total = sum(SIZES)
    whole = ShardWalk("coyo", SIZES, seed=1).indices(4, np.arange(total))
    shuffled = np.random.default_rng(0).permutation(total)
    np.testing.assert_array_equal(ShardWalk("coyo", SIZES, seed=1).indices(4, shuffled), whole[shuffled])
    assert whole.tolist() != ShardWalk("coyo", SIZES, seed=2).indices(4, np.arange(total)).tolist()


class Fake:
    """Datasets of numbers, one of them in shards."""

    def __init__(self, sizes: list[int]) -> None:
        self.shard_sizes = sizes

    def __len__(self) -> int:
        return sum(self.shard_sizes)


@pytest.mark.parametrize("replacement", [False, True])
def test_a_mixture_resumes_anywhere_and_reads_shards_in_stretches(replacement: bool) -> None:
    def mixture() -> Mixture:
        even = PerDataset(tasks=None, leave_out=[], only=None, replacement=replacement)
        return Mixture(datasets={"coyo": Fake(SIZES), "small": range(10)}, balance=even, seed=0)  # type: ignore[dict-item]

    whole = mixture().places(range(1500))
    assert mixture().places(range(1200, 1500)) == whole[1200:]
    first = [index for dataset, index in whole if dataset == 0][: sum(SIZES)]
    assert sorted(first) == list(range(sum(SIZES))), "shards are walked through even where others are drawn anew"
    small = [index for dataset, index in whole if dataset == 1][:10]
    assert (len(set(small)) == 10) != replacement
    assert mixture().counts(1500) == {"coyo": sum(d == 0 for d, _ in whole), "small": sum(d == 1 for d, _ in whole)}


def test_by_size_takes_shards_alone() -> None:
    alone = Mixture(datasets={"coyo": Fake(SIZES)}, balance=BySize(), seed=0)  # type: ignore[dict-item]
    assert sorted(index for _, index in alone.places(range(sum(SIZES)))) == list(range(sum(SIZES)))
    assert alone.counts(1000) == {"coyo": 1000}
    with pytest.raises(UserError, match=r"dataset 'coyo' is in shards.*choose another balance"):
        Mixture(datasets={"coyo": Fake(SIZES), "small": range(10)}, balance=BySize(), seed=0)  # type: ignore[dict-item]
