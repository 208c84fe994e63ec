"""``mmexp lab``: making several stages at once, showing and shipping them, and mistakes in one line."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from mmexp.errors import UserError
from mmexp.files import read_json
from mmexp.lab import build, show
from mmexp.lab.check import Findings, best, lines_of, shallower_is_better, strengths, table_of
from mmexp.lab.questions import FAMILIES
from mmexp.stages.graph import Graph, build_graph
from mmexp.stages.run import run_stage
from mmexp.stages.store import Store
from mmexp.sweeping.workers.inline import InlineLauncher
from tests.lab.making import lab_config

SMALL = (
    "lab.stages.lab_clip.budget.steps=2",
    "lab.stages.lab_clip.batch_size=4",
    "lab.stages.lab_clip.probes={depths:[1],train:20,test:20,steps:1,batch_size:4,lr:0.01,hidden:4}",
)


def store_in(folder: Path) -> Store:
    return Store(folder / "store", folder / "runs")


def small_clip(*overrides: str) -> Graph:
    return build_graph(lab_config(*SMALL, *overrides), "lab_clip")


def make(graph: Graph, folder: Path) -> Store:
    store = store_in(folder)
    build.make([graph], store, InlineLauncher(), folder / "lab_build", Console(quiet=True))
    return store


def test_what_is_made_is_in_the_store_and_can_be_shipped(tmp_path: Path) -> None:
    graph = small_clip()
    store, spec = make(graph, tmp_path), graph.last
    made = store.find(spec.key)
    assert made is not None and (made / "model.safetensors").is_file()
    size = build.ship_one(spec, store, tmp_path / "package")
    shipped = tmp_path / "package" / spec.key
    assert size == sum(path.stat().st_size for path in shipped.iterdir())
    assert (shipped / "model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()
    assert (read_json(shipped / "stage.json") or {})["machine"] == ""
    assert Store(tmp_path / "empty", tmp_path / "runs", [tmp_path / "package"]).find(spec.key) == shipped


def test_a_failed_stage_is_one_line(tmp_path: Path) -> None:
    """A family without questions shows only when scenes are drawn: one object cannot be compared with another."""
    one = ("lab.world.min_objects=1", "lab.world.max_objects=1")
    graph = build_graph(lab_config(*one), "lab_world")
    with pytest.raises(
        UserError, match=r"no scene of this world has a question of family 'relative_position'"
    ) as error:
        make(graph, tmp_path)
    assert "\n" not in str(error.value) and "stage lab_world; log: " in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("lab.world.max_objects=20",), r"lab.world.max_objects: 20 objects do not fit"),
        (("lab.world.nois=3",), r"lab.world.nois"),
    ],
)
def test_a_world_that_cannot_be_drawn_is_one_line_before_anything_starts(
    overrides: tuple[str, ...], line: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=line) as error:
        config = lab_config(*overrides, f"paths.root={tmp_path}/out")
        build.build(config, Store.from_config(config))
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_a_store_without_write_access_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r".* cannot be written .*; choose another paths.root"):
        make(small_clip(), tmp_path / "file")
    with pytest.raises(UserError, match=r"paths: .* cannot be written .*; choose another paths.root"):
        run_stage(small_clip().last, store_in(tmp_path / "file"), None)


def little_world(tmp_path: Path) -> Mapping[str, Any]:
    config = lab_config(f"paths.root={tmp_path}", "lab.stages.lab_world.captions={align: 6}")
    world = config["lab"]["stages"]["lab_world"]
    for split in world["questions"].values():
        split["images"] = 8
    if world.get("pope"):
        world["pope"]["images"] = 4
    return config


def test_the_sheet_has_every_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = little_world(tmp_path)
    store = Store.from_config(config)
    show.show(config, store)
    asked = show.examples(run_stage(build.lab_specs(config)["lab_world"], store, None))
    assert set(asked) >= {*FAMILIES, "caption"}
    assert all(len({image for _, image, _, _ in part}) == len(part) for part in asked.values())
    with Image.open(tmp_path / "lab.png") as sheet:
        assert sheet.height > len(asked) * show.SIDE // show.BLOCKS and len(sheet.getcolors(1 << 20) or []) > 1000


FOUND: Findings = {
    "reader": {"1": {"tens": {"linear": 50.0, "mlp": 90.0}}, "4": {"tens": {"linear": 60.0, "mlp": 70.0}}},
    "other": {"1": {"tens": {"linear": 30.0, "mlp": 30.0}}, "4": {"tens": {"linear": 31.0, "mlp": 30.0}}},
    "blind": {"1": {"tens": {"linear": 11.0, "mlp": 12.0}}, "4": {"tens": {"linear": 10.0, "mlp": 12.0}}},
}


def test_the_table_says_who_sees_what() -> None:
    assert best(FOUND["reader"]) == {"tens": (90.0, "1")}
    assert strengths(FOUND) == {"reader": ["tens"], "other": ["tens"], "blind": []}
    assert shallower_is_better(FOUND["reader"], margin=3.0) == ["tens"]
    assert shallower_is_better(FOUND["other"], margin=3.0) == []
    lines = lines_of(FOUND, {"tens": 12.0})
    assert lines[2].startswith("blind: best or second best: nothing; not above chance: tens; better before")
    console = Console(width=120, file=io.StringIO())
    with console.capture() as text:
        console.print(table_of(FOUND, {"tens": 12.0}))
    assert "50/90*" in text.get()
