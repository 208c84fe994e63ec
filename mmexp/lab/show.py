"""``mmexp lab show``: a contact sheet, to be looked at before anything is trained."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmexp.lab.build import WORLD, lab_specs
from mmexp.recipe.run import run_stage
from mmexp.recipe.store import Store

if TYPE_CHECKING:
    from PIL import ImageDraw

SIDE, GAP, TEXT_HEIGHT, LABEL_HEIGHT = 192, 16, 92, 30
EXAMPLES = 5
LETTERS = "ABCDEFGH"
LINE_CHARACTERS, FONT_SIZE, LINE_HEIGHT = 31, 12, 15
Asked = tuple[str, str, str, str]
"""(family, image, question, answer)."""


def show(config: Mapping[str, Any], store: Store) -> None:
    """Write ``lab.png`` here: a row for each family, images of different scenes with a question and its answer."""
    from PIL import Image, ImageDraw

    world = run_stage(lab_specs(config)[WORLD], store, None)
    rows = examples(world)
    width, height = SIDE + GAP, LABEL_HEIGHT + SIDE + TEXT_HEIGHT
    sheet = Image.new("RGB", (EXAMPLES * width + GAP, len(rows) * height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (family, asked) in enumerate(rows.items()):
        top = GAP + number * height
        _text(draw, (GAP, top), family.replace("_", " "), "black", 16)
        for place, (_, image, question, answer) in enumerate(asked):
            left = GAP + place * width
            with Image.open(world / "images" / image) as drawn:
                sheet.paste(drawn.resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, top + LABEL_HEIGHT - 6))
            _question(draw, (left, top + LABEL_HEIGHT + SIDE - 2), question, answer)
    path = Path("lab.png").absolute()
    sheet.save(path)
    print(path)


def examples(world: Path) -> dict[str, list[Asked]]:
    """Family -> questions about different images, of all files that the world has."""
    found: dict[str, list[Asked]] = {}
    for path in sorted([*world.glob("*.jsonl"), *world.glob("*.json")]):
        for asked in _read(path):
            have = found.setdefault(asked[0], [])
            if len(have) < EXAMPLES and asked[1] not in {other[1] for other in have}:
                have.append(asked)
    return dict(sorted(found.items()))


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
