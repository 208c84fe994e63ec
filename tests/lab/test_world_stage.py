"""The world on disk: formats that the readers read, disjoint splits, same bytes, resumable."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmexp.data.sources.llava_json import LlavaJson
from mmexp.data.sources.qa_jsonl import QaJsonl
from mmexp.errors import UserError
from mmexp.lab.world_stage import WorldStage
from tests.lab.making import FAMILIES, WORLD, world_node


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    WorldStage(**world_node()).run(folder, {})
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_same_seed_same_bytes(world: Path, tmp_path: Path) -> None:
    WorldStage(**world_node()).run(tmp_path / "again", {})
    WorldStage(**world_node(seed=1)).run(tmp_path / "other", {})
    assert contents(world) == contents(tmp_path / "again")
    assert contents(world) != contents(tmp_path / "other")
    assert len(contents(world)) == 6 + 12 + 5 + 7 + 5


def test_a_killed_run_continues(world: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def stop(step: int, total: int) -> None:
        seen.append((step, total))
        if step == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        WorldStage(**world_node()).run(tmp_path, {"progress": stop})
    first = tmp_path / "images" / "align" / "000000.png"
    written = first.stat().st_mtime_ns
    WorldStage(**world_node()).run(tmp_path, {})
    assert seen[-1] == (10, 30)
    assert first.stat().st_mtime_ns == written
    assert contents(tmp_path) == contents(world)


def test_the_projects_readers_read_it(world: Path) -> None:
    images = str(world / "images")
    captions = LlavaJson(annotations=str(world / "align.json"), image_folder=images, name="align")
    assert len(captions) == 6 and captions[0].turns[0].answer.startswith("a ")
    questions = LlavaJson(annotations=str(world / "finetune.json"), image_folder=images, name="finetune")
    assert len(questions) == 12 and len(questions[0].turns) >= 18
    formats = {turn.family: turn.response_format for turn in questions[0].turns if turn.family != "reading"}
    assert set(formats) == {*FAMILIES} - {"reading"} and formats["multiple_choice"] == "letter"
    test = QaJsonl(annotations=str(world / "test.jsonl"), image_folder=images, name="test", group_by_image=True)
    assert len(test) == 7 and all(
        sample.image is not None and sample.image.is_file() for sample in map(test.__getitem__, range(7))
    )


def test_images_are_pngs_of_the_worlds_size(world: Path) -> None:
    for path in (world / "images").rglob("*.png"):
        with Image.open(path) as image:
            assert image.size == (64, 64) and image.mode == "RGB"
            assert np.asarray(image).std() > 0


def test_splits_share_no_scene() -> None:
    """By content: jitter and noise do not make another scene."""
    node = world_node()
    node["captions"] = {"align": 300}
    for split, images in (("finetune", 1500), ("val", 200), ("test", 300)):
        node["questions"][split]["images"] = images
    drawn = WorldStage(**node).draw_scenes()
    everything = [scene.content() for part in drawn.values() for scene in part]
    assert len(everything) == 2300 == len(set(everything))
    assert all(scene.held_out == (split in ("val", "test")) for split, part in drawn.items() for scene in part)


def test_a_small_world_is_refused_when_it_is_used_up() -> None:
    node = world_node(
        world={**WORLD, "grid": 1, "image_size": 16, "min_objects": 1, "max_objects": 1, "sign_percent": 0}
    )
    with pytest.raises(UserError, match="not enough different scenes for"):
        WorldStage(**{**node, "captions": {"align": 60}}).draw_scenes()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"captions": {"align": 0}}, "split 'align': 0 images; must be at least 1"),
        ({"held_out": ["tests"]}, "held_out: unknown split 'tests'; did you mean 'test'"),
        ({"qa": ["tests"]}, "qa: unknown split 'tests'; did you mean 'test'"),
        ({"pope": {"split": "tst", "statistics": "finetune"}}, "pope.split: unknown split 'tst'; did you mean 'test'"),
        ({"world": {**WORLD, "max_objects": 17}}, "17 objects do not fit"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=r"^[^\n]*$") as caught:
        WorldStage(**world_node(**changes))
    assert said in str(caught.value)


def test_annotations_name_family_and_format(world: Path) -> None:
    record = json.loads((world / "finetune.json").read_text())[0]
    human, gpt = record["conversations"][:2]
    assert set(human) == {"from", "value", "format", "family"} and human["value"].startswith("<image>\n")
    assert set(gpt) == {"from", "value"}
    line = json.loads((world / "val.jsonl").read_text().splitlines()[0])
    assert set(line) == {"question_id", "image", "question", "answer", "family", "format"}


def test_choices_stand_in_the_text_or_apart(world: Path) -> None:
    records = json.loads((world / "finetune.json").read_text())
    entries = [entry for record in records for entry in record["conversations"] if "family" in entry]
    value = next(entry["value"] for entry in entries if entry["family"] == "multiple_choice")
    assert [line[:3] for line in value.removeprefix("<image>\n").splitlines()[1:]] == ["A. ", "B. ", "C. ", "D. "]
    lines = [json.loads(line) for line in (world / "val.jsonl").read_text().splitlines()]
    apart = next(line for line in lines if line["family"] == "multiple_choice")
    assert len(apart["choices"]) == 4 and apart["answer"] in "ABCD" and "\n" not in apart["question"]
