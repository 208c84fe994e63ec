"""``mmexp lab show``: a contact sheet, to be looked at before anything is trained."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmexp.lab.build import WORLD, lab_specs
from mmexp.stages.run import run_stage
from mmexp.stages.store import Store

if TYPE_CHECKING:
    from PIL import ImageDraw

SIDE, GAP, TEXT_HEIGHT, LABEL_HEIGHT = 192, 16, 92, 30
EXAMPLES, BLOCKS = 4, 2
"""Images of a family, and families side by side."""
CANDIDATES = 200
LETTERS = "ABCDEFGH"
LINE_CHARACTERS, FONT_SIZE, LINE_HEIGHT = 31, 12, 15
Asked = tuple[str, str, str, str]
"""(family, image, question, answer)."""


def show(config: Mapping[str, Any], store: Store) -> None:
    """Write ``lab.png`` here: for each family images of different scenes with a question and its answer."""
    from PIL import Image, ImageDraw

    world = run_stage(lab_specs(config)[WORLD], store, None)
    families = examples(world)
    width, height = EXAMPLES * (SIDE + GAP) + GAP, LABEL_HEIGHT + SIDE + TEXT_HEIGHT
    sheet = Image.new("RGB", (BLOCKS * width + GAP, -(-len(families) // BLOCKS) * height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (family, asked) in enumerate(families.items()):
        left, top = GAP + number % BLOCKS * width, GAP + number // BLOCKS * height
        _text(draw, (left, top), family.replace("_", " "), "black", 16)
        for place, (_, image, question, answer) in enumerate(asked):
            start = left + place * (SIDE + GAP)
            with Image.open(world / "images" / image) as drawn:
                sheet.paste(drawn.resize((SIDE, SIDE), Image.Resampling.NEAREST), (start, top + LABEL_HEIGHT - 6))
            _question(draw, (start, top + LABEL_HEIGHT + SIDE - 2), question, answer)
    path = Path("lab.png").absolute()
    sheet.save(path)
    print(path)


def examples(world: Path) -> dict[str, list[Asked]]:
    """Family -> questions about different images, of all files that the world has; other images for each family."""
    found: dict[str, list[Asked]] = {}
    for path in sorted([*world.glob("*.jsonl"), *world.glob("*.json")]):
        for asked in _read(path):
            have = found.setdefault(asked[0], [])
            if len(have) < CANDIDATES:
                have.append(asked)
    return {family: varied(found[family], EXAMPLES * number) for number, family in enumerate(sorted(found))}


def varied(asked: list[Asked], start: int) -> list[Asked]:
    """Some from ``start`` on, about different images, with different answers as far as there are any."""
    turned = asked[start % len(asked) :] + asked[: start % len(asked)]
    chosen: list[Asked] = []
    for answers_too in (True, False):
        for one in turned:
            same = any(one[1] == other[1] or (answers_too and one[3] == other[3]) for other in chosen)
            if not same and len(chosen) < EXAMPLES:
                chosen.append(one)
    return chosen


def _read(path: Path) -> Iterator[Asked]:
    """Questions of one annotation file, whichever of the two formats it has."""
    if path.suffix == ".jsonl":
        for line in path.read_text().splitlines():
            record = json.loads(line)
            choices = [f"{letter}. {text}" for letter, text in zip(LETTERS, record.get("choices", ()), strict=False)]
            question = "\n".join([record["question"], *choices])
            yield record["family"], record["image"], question, str(record["answer"])
        return
    records = json.loads(path.read_text())
    for record in records if isinstance(records, list) else ():
        entries = record["conversations"]
        for human, gpt in zip(entries[::2], entries[1::2], strict=True):
            if record.get("image"):
                question = human["value"].removeprefix("<image>\n")
                yield human["family"], record["image"], question, str(gpt["value"])


def _question(draw: "ImageDraw.ImageDraw", place: tuple[int, int], question: str, answer: str) -> None:
    lines = [("#404040", part) for line in question.splitlines() for part in textwrap.wrap(line, LINE_CHARACTERS)]
    lines += [("#0050b0", part) for part in textwrap.wrap(answer, LINE_CHARACTERS)]
    for number, (color, line) in enumerate(lines):
        _text(draw, (place[0], place[1] + number * LINE_HEIGHT), line, color, FONT_SIZE)


def _text(draw: "ImageDraw.ImageDraw", place: tuple[int, int], text: str, color: str, size: int) -> None:
    from PIL import ImageFont

    draw.text(place, text, fill=color, font=ImageFont.load_default(size))
