"""What files, folders, weights and hub models hold, and that nothing is read twice."""

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from mmexp.stages import contents, fingerprints
from mmexp.stages.fingerprints import Fingerprints, may_be_path
from mmexp.stages.graph import build_graph
from tests import fakes

OLD_NS = 1_700_000_000_000_000_000


def write(path: Path, text: str | bytes, *, settled: bool = True) -> Path:
    """A file, changed long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if settled:
        for place in (path, path.parent):
            os.utime(place, ns=(OLD_NS, OLD_NS))
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of all files and folders that were really looked through."""
    found: list[str] = []
    read, walk = contents.file_content, contents.listing
    monkeypatch.setattr(fingerprints, "_contents", {})
    monkeypatch.setattr(fingerprints, "file_content", lambda path: found.append(path) or read(path))
    monkeypatch.setattr(fingerprints, "listing", lambda path, below: found.append(path) or walk(path, below))
    return found


def source(annotations: Path, images: Path, target: str = "mmexp.data.sources.llava_json.LlavaJson") -> dict[str, Any]:
    return {"_target_": target, "annotations": str(annotations), "image_folder": str(images)}


def key(node: Any, **changes: Any) -> str:
    """Of a stage with this node in it."""
    config = fakes.config(Path("/nowhere"))
    config["lab"]["stages"]["base"]["node"] = {**node, **changes} if changes else node
    return build_graph(config, "base").key


def test_the_same_content_elsewhere_has_the_same_key(tmp_path):
    one = write(tmp_path / "a" / "x.json", "[1]", settled=False)
    other = write(tmp_path / "b" / "y.json", "[1]", settled=False)
    third = write(tmp_path / "b" / "z.json", "[2]", settled=False)
    assert key({"file": str(one)}) == key({"file": str(other)}) != key({"file": str(third)})
    assert key({"file": "/none/x.json"}) != key({"file": "/none/y.json"})


def test_an_edit_of_the_same_size_and_time_in_another_command_is_seen_where_files_are_small(tmp_path, monkeypatch):
    path = write(tmp_path / "x.json", "[1]")
    first = key({"file": str(path)})
    write(path, "[2]")
    monkeypatch.setattr(fingerprints, "_contents", {})
    assert key({"file": str(path)}) != first


def test_a_sweep_reads_each_file_and_folder_once(tmp_path, reads):
    """20 rows of 3 seeds, with two stages and ten datasets each."""
    datasets = {}
    for number in range(10):
        annotations = write(tmp_path / f"{number}.json", json.dumps([{"image": f"{number}/1.jpg"}]))
        write(tmp_path / "images" / str(number) / "1.jpg", "pixels")
        datasets[str(number)] = source(annotations, tmp_path / "images")
    shared = Fingerprints(None)
    keys = set()
    for row in range(20):
        for seed in range(3):
            config = fakes.config(tmp_path, value=row, seed=seed)
            for name in ("align", "finetune"):
                config["recipe"]["stages"][name]["datasets"] = copy.deepcopy(datasets)
            keys.add(build_graph(config, fingerprints=shared).key)
    assert len(keys) == 60
    files = [path for path in reads if path.endswith(".json")]
    assert len(files) == 10 == len(set(files))
    assert reads.count(str(tmp_path / "images")) == 10  # once for each dataset, which names a folder of its own


def test_a_large_file_is_read_once_by_all_commands(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(fingerprints, "LARGE_FILE", 2)
    path = write(tmp_path / "x.json", '[{"image": "a/b.jpg"}]')
    for _ in range(3):
        monkeypatch.setattr(fingerprints, "_contents", {})  # as in a new process
        found = Fingerprints(tmp_path).file(str(path))
    assert found.folders == ("a",) and reads == [str(path)]
    path.write_text('[{"image": "c/b.jpg"}]')
    assert Fingerprints(tmp_path).file(str(path)).folders == ("c",)


def test_what_was_just_written_is_not_remembered(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(fingerprints, "LARGE_FILE", 2)
    path = write(tmp_path / "x.bin", "12345", settled=False)
    for _ in range(2):
        Fingerprints(tmp_path).file(str(path))
    assert reads == [str(path)] * 2
    assert not (tmp_path / ".fingerprints.jsonl").exists()


def test_half_a_line_and_a_store_without_write_access_do_no_harm(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(fingerprints, "LARGE_FILE", 2)
    path = write(tmp_path / "x.bin", "12345")
    first = Fingerprints(tmp_path).file(str(path))
    memory = tmp_path / ".fingerprints.jsonl"
    memory.write_text(memory.read_text()[:-9] + "\n[1]\n")
    monkeypatch.setattr(fingerprints, "_contents", {})
    assert Fingerprints(tmp_path).file(str(path)) == first
    assert len(reads) == 2
    monkeypatch.setattr(fingerprints, "_contents", {})
    assert Fingerprints(path).file(str(path)) == first  # a store that is a file


def test_a_large_folder_is_walked_again_only_when_a_file_comes_or_goes(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(fingerprints, "LARGE_FOLDER", 2)
    images, store = tmp_path / "images", tmp_path / "store"
    store.mkdir()
    for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg"):
        write(images / name, "pixels")
    os.utime(images, ns=(OLD_NS, OLD_NS))
    first = Fingerprints(store).folder(str(images), None)
    assert Fingerprints(store).folder(str(images), None) == first and len(reads) == 1
    write(images / "b" / "4.jpg", "pixels")
    os.utime(images / "b")
    assert Fingerprints(store).folder(str(images), None) != first and len(reads) == 2


def test_only_the_folders_that_annotations_name_are_looked_at(tmp_path):
    records = [{"id": 1, "image": "coco/train/1.jpg"}, {"image": "top.jpg"}, {"image": None}, {"conversations": []}]
    annotations = write(tmp_path / "x.jsonl", "\n".join(map(json.dumps, records)))
    for name in ("coco/train/1.jpg", "coco/val/2.jpg", "top.jpg"):
        write(tmp_path / "images" / name, "pixels")
    node = source(annotations, tmp_path / "images")
    own = {**node, "_target_": "tests.fakes.Count"}
    before, own_before = key(node), key(own)
    write(tmp_path / "images" / "coco" / "val" / "3.jpg", "pixels")
    assert key(node) == before and key(own) != own_before
    write(tmp_path / "images" / "coco" / "train" / "3.jpg", "pixels")
    assert key(node) != before


@pytest.mark.parametrize(
    ("text", "folders"),
    [
        (r'[{"image": "a\/b\/1.jpg"}, {"image" : "a\/c\/1.jpg"}]', ("a/b", "a/c")),
        ('[{"value": "the key \\"image\\": \\"q/x.jpg\\""}]', ()),
        ('[{"image": ["a/1.jpg", "a/2.jpg"]}]', None),
        ('[{"video": "a/1.mp4"}]', None),
        ('[{"image": null}]', ()),
    ],
)
def test_folders_of_images_are_read_from_any_json(tmp_path, text, folders):
    assert contents.file_content(str(write(tmp_path / "x.json", text))).folders == folders


def test_a_name_that_a_chunk_cuts_in_two_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "CHUNK", 7)
    monkeypatch.setattr(contents, "OVERLAP", 40)
    text = json.dumps([{"image": f"folder{number}/1.jpg"} for number in range(5)])
    found = contents.file_content(str(write(tmp_path / "x.json", text))).folders
    assert found == tuple(f"folder{number}" for number in range(5))


def test_hidden_files_and_what_we_note_beside_shards_are_no_data(tmp_path):
    write(tmp_path / "0.tar", "tar")
    before = contents.listing(str(tmp_path)).digest
    write(tmp_path / ".DS_Store", "x")
    write(tmp_path / "mmexp_counts.json", "{}")
    assert contents.listing(str(tmp_path)).digest == before


def test_a_link_to_its_own_folder_ends(tmp_path):
    write(tmp_path / "a" / "1.jpg", "x")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert contents.listing(str(tmp_path)).count == 1


def test_weights_are_known_by_content_also_after_a_copy(tmp_path):
    write(tmp_path / "a" / "config.json", "{}")
    write(tmp_path / "a" / "model.safetensors", b"\x02" + bytes(7) + b"{}" + bytes(100))
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    first = key({"checkpoint": str(tmp_path / "a")})
    assert key({"checkpoint": str(tmp_path / "b")}) == first
    write(tmp_path / "b" / "model.safetensors", b"\x02" + bytes(7) + b"{}" + bytes(99) + b"1")
    assert key({"checkpoint": str(tmp_path / "b")}) != first


def test_large_weights_are_sampled_from_their_head_to_their_end(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "SAMPLED_FROM", 1000)
    monkeypatch.setattr(contents, "SAMPLES", 4)
    monkeypatch.setattr(contents, "SAMPLE", 10)
    body = bytearray(2000)
    digests = set()
    for place in (None, 0, 663, 1999):  # starts of blocks, and the last byte
        changed = bytearray(body)
        if place is not None:
            changed[place] = 1
        digests.add(contents.file_content(str(write(tmp_path / "x.bin", bytes(changed)))).digest)
    assert len(digests) == 4
    read = contents.file_content(str(write(tmp_path / "x.txt", bytes(2000)))).digest
    assert read not in digests  # another kind of file is read whole


def test_a_model_that_is_downloaded_later_keeps_its_keys_and_a_new_revision_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    config = fakes.config(tmp_path)
    config["lab"]["stages"]["base"] |= {"checkpoint": "org/model", "weights": "hub", "model_name": "vit.tag"}
    (tmp_path / "store").mkdir()
    before = build_graph(config, "base").key
    for name in ("org--model", "timm--vit.tag"):
        ref = write(tmp_path / "hub" / f"models--{name}" / "refs" / "main", "1111\n")
        assert build_graph(config, "base").key == before
        assert build_graph(config, "base").last.identities["checkpoint"]["detail"] == {"revision": "1111"}
        ref.write_text("2222")
        assert build_graph(config, "base").key != before
        ref.write_text("1111")
        assert build_graph(config, "base").key == before


@pytest.mark.parametrize(
    ("text", "looks_so"),
    [("a/b", True), ("x.json", True), ("/", False), (" / ", True), ("3.5", False), ("word", False), ("a\n/b", False)],
)
def test_texts_that_may_be_paths(text, looks_so):
    assert may_be_path(text) == looks_so
