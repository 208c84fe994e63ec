"""``mmexp lab``: make the lab's stages, look at them, and put the finished ones into the package."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmexp.errors import UserError
from mmexp.recipe.graph import StageSpec, build_graph
from mmexp.recipe.run import run_stage
from mmexp.recipe.store import Store

WORLD = "lab_world"
DRAWN = (WORLD, "lab_video")
"""Stages of pictures, which are drawn again rather than shipped."""
SHEET_IMAGES, SHEET_COLUMNS = 12, 4


def artifact_dir() -> Path:
    """Read-only root of shipped stages, ``<stage key>/``; a stage whose key is not among them is built."""
    return Path(__file__).parent / "artifacts"


def lab_specs(config: Mapping[str, Any]) -> dict[str, StageSpec]:
    """Name -> spec of every stage of the lab, parents first."""
    specs: dict[str, StageSpec] = {}
    for name in config["lab"]["stages"]:
        specs |= dict(build_graph(config, name).stages)
    return specs


def build(config: Mapping[str, Any], store: Store) -> None:
    """Make the stages that are missing; says where each one is."""
    for name, spec in lab_specs(config).items():
        existed = store.find(spec.key) is not None
        folder = run_stage(spec, store, None)
        print(f"{name:12} {'exists' if existed else 'made'}   {folder}")


def ship(config: Mapping[str, Any], store: Store) -> None:
    """Put the finished experts and language models into the package, and take out what no config names any more."""
    specs = {name: spec for name, spec in lab_specs(config).items() if name not in DRAWN}
    missing = [name for name, spec in specs.items() if store.find(spec.key) is None]
    if missing:
        raise UserError(f"lab ship: {', '.join(missing)} is not built; run 'mmexp lab build' first")
    root = artifact_dir()
    keys = {spec.key for spec in specs.values()}
    for old in root.iterdir() if root.is_dir() else []:
        if old.name not in keys:
            shutil.rmtree(old)
    for name, spec in specs.items():
        source = store.find(spec.key)
        assert source is not None
        if source.parent != root:
            shutil.copytree(source, root / spec.key)
        size = sum(path.stat().st_size for path in (root / spec.key).rglob("*"))
        print(f"{name:12} {spec.key}  {size / 1e6:.2f} MB")


def check(config: Mapping[str, Any], store: Store) -> None:
    """Print what the stages know of themselves, and how well questions can be answered without their image."""
    from mmexp.lab.questions import question_only_accuracy

    specs = lab_specs(config)
    for name, spec in specs.items():
        folder = run_stage(spec, store, None)
        for path in sorted(folder.glob("*.json")):
            if path.name in ("check.json", "lookup.json"):
                print(f"{name}: {path.read_text()}")
    world = run_stage(specs[WORLD], store, None)
    train, test = (read_questions(world, split) for split in ("finetune", "test"))
    for family in sorted(test):
        accuracy = question_only_accuracy(train[family], test[family])
        print(f"{family:20} answered from the question alone: {100 * accuracy:.1f} %")


def read_questions(world: Path, split: str) -> dict[str, list[tuple[str, str]]]:
    """Family -> (question, answer) of a split."""
    found: dict[str, list[tuple[str, str]]] = {}
    held_out = world / f"{split}.jsonl"
    if held_out.is_file():
        for line in held_out.read_text().splitlines():
            record = json.loads(line)
            found.setdefault(record["family"], []).append((record["question"], record["answer"]))
        return found
    for record in json.loads((world / f"{split}.json").read_text()):
        entries = record["conversations"]
        for human, gpt in zip(entries[::2], entries[1::2], strict=True):
            question = human["value"].removeprefix("<image>\n")
            found.setdefault(human["family"], []).append((question, gpt["value"]))
    return found


def show(config: Mapping[str, Any], store: Store) -> None:
    """Write ``lab.png`` here: test images with their questions and answers."""
    from PIL import Image, ImageDraw

    world = run_stage(lab_specs(config)[WORLD], store, None)
    records: dict[str, list[Any]] = {}
    for line in (world / "test.jsonl").read_text().splitlines():
        record = json.loads(line)
        records.setdefault(record["image"], []).append(record)
    images = list(records)[:SHEET_IMAGES]
    side, width, height = 128, 330, 230
    rows = -(-len(images) // SHEET_COLUMNS)
    sheet = Image.new("RGB", (SHEET_COLUMNS * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, name in enumerate(images):
        left, top = number % SHEET_COLUMNS * width, number // SHEET_COLUMNS * height
        with Image.open(world / "images" / name) as image:
            sheet.paste(image.resize((side, side), Image.Resampling.NEAREST), (left + 4, top + 4))
        lines = [f"{record['question']}  {record['answer']}" for record in records[name]]
        draw.multiline_text((left + 4, top + side + 10), "\n".join(lines), fill="black")
    path = Path("lab.png").absolute()
    sheet.save(path)
    print(path)
