"""The drawn world on disk, in the formats that users bring: LLaVA JSON, QA JSONL and PNG."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmexp.errors import UserError, nearest
from mmexp.lab.dice import Dice
from mmexp.lab.questions import Questioner, caption
from mmexp.lab.world import Scene, WorldSpec, draw_image, scenes
from mmexp.recipe.files import write_text

CAPTION_REQUEST = "describe the image."
TRIES_PER_IMAGE = 200


class WorldStage:
    """Draws splits that share no scene: ``images/<split>/*.png``, and annotations for each split.

    Captions go to ``<split>.json`` (LLaVA). Questions go to ``<split>.json`` (LLaVA, all questions of an image in one
    record) for training splits and to ``<split>.jsonl`` (question and answer) for held-out ones.

    Args:
        world: node ``lab.world``.
        captions: training split -> images, one caption each.
        questions: split -> ``images`` and, by family, questions per image.
        held_out: splits of ``questions`` whose scenes neither experts nor language models are trained on.
        seed: of all drawing.

    Raises:
        UserError: a world that cannot be drawn, unknown families, a number of images below 1.
    """

    VERSION = 3

    def __init__(
        self,
        *,
        world: Mapping[str, int],
        captions: Mapping[str, int],
        questions: Mapping[str, Mapping[str, int]],
        held_out: Sequence[str],
        seed: int,
    ) -> None:
        self.spec = WorldSpec.from_config(world)
        self.captions, self.questions = dict(captions), {name: dict(node) for name, node in questions.items()}
        self.held_out, self.seed = list(held_out), seed
        self.sizes = {**self.captions, **{name: node.pop("images", 0) for name, node in self.questions.items()}}
        for name in self.held_out:
            if name not in self.questions:
                raise UserError(f"lab world: held_out: no split '{name}'; {nearest(name, self.questions)}")
        for name, size in self.sizes.items():
            if size < 1:
                raise UserError(f"lab world: split '{name}': {size} images; at least 1")

    def run(self, workdir: Path, runtime: Mapping[str, Any]) -> None:
        """Write everything; images that a killed run left are kept."""
        drawn = self.draw_scenes()
        for split, number in zip(self.questions, range(1, len(self.questions) + 1), strict=True):
            questioner = Questioner(self.spec, self.questions[split], Dice(self.seed, 20, number))
            asked = [questioner.ask(scene) for scene in drawn[split]]
            questioner.check(f"lab world: split '{split}'")
            self._write_questions(workdir, split, asked)
        for number, split in enumerate(self.captions):
            self._write_captions(workdir, split, drawn[split], Dice(self.seed, 21, number))
        self._write_images(workdir, drawn, runtime)

    def draw_scenes(self) -> dict[str, list[Scene]]:
        """Split -> scenes, all different. Raises ``UserError`` when the world has not enough scenes."""
        seen: set[str] = set()
        return {
            split: self._new_scenes(split, Dice(self.seed, 10, number), seen) for number, split in enumerate(self.sizes)
        }

    def _new_scenes(self, split: str, dice: Dice, seen: set[str]) -> list[Scene]:
        found: list[Scene] = []
        source = scenes(self.spec, dice, held_out=split in self.held_out)
        for _ in range(TRIES_PER_IMAGE * self.sizes[split]):
            scene = next(source)
            if scene.content() not in seen:
                seen.add(scene.content())
                found.append(scene)
            if len(found) == self.sizes[split]:
                return found
        raise UserError(
            f"lab world: split '{split}': this world has not enough different scenes for {self.sizes[split]} images; "
            "fewer images, or more objects (lab.world.max_objects)"
        )

    def _write_questions(self, workdir: Path, split: str, asked: list[list[tuple[str, str, str]]]) -> None:
        if split in self.held_out:
            lines = [json.dumps(record) for record in _qa_records(split, asked)]
            write_text(workdir / f"{split}.jsonl", "\n".join(lines) + "\n")
            return
        records = [
            _llava_record(split, number, [(question, answer, "word", family) for family, question, answer in part])
            for number, part in enumerate(asked)
        ]
        _write_list(workdir / f"{split}.json", records)

    def _write_captions(self, workdir: Path, split: str, drawn: list[Scene], dice: Dice) -> None:
        records = [
            _llava_record(split, number, [(CAPTION_REQUEST, caption(self.spec, scene, dice), None, "caption")])
            for number, scene in enumerate(drawn)
        ]
        _write_list(workdir / f"{split}.json", records)

    def _write_images(self, workdir: Path, drawn: Mapping[str, list[Scene]], runtime: Mapping[str, Any]) -> None:
        from PIL import Image
        from tqdm import tqdm

        total = sum(self.sizes.values())
        progress = runtime.get("progress") or (lambda step, total: None)
        bar = tqdm(total=total, desc="lab_world", unit="image", disable=None)
        done = 0
        for number, (split, part) in enumerate(drawn.items()):
            (workdir / "images" / split).mkdir(parents=True, exist_ok=True)
            for place, scene in enumerate(part):
                path = workdir / "images" / image_name(split, place)
                if not path.exists():
                    pixels = draw_image(self.spec, scene, Dice(self.seed, 11, number, place))
                    temporary = path.with_suffix(".tmp")
                    Image.fromarray(pixels).save(temporary, "PNG", compress_level=1)
                    os.replace(temporary, path)
                bar.update()
                done += 1
                progress(done, total)
        bar.close()


def image_name(split: str, number: int) -> str:
    return f"{split}/{number:06d}.png"


def _llava_record(split: str, number: int, turns: list[tuple[str, str, str | None, str]]) -> dict[str, Any]:
    """``turns`` are (question, answer, response format, family)."""
    conversations: list[dict[str, Any]] = []
    for question, answer, response_format, family in turns:
        marker = "" if conversations else "<image>\n"
        human = {"from": "human", "value": marker + question, "format": response_format, "family": family}
        conversations += [human, {"from": "gpt", "value": answer}]
    return {"id": f"{split}_{number:06d}", "image": image_name(split, number), "conversations": conversations}


def _qa_records(split: str, asked: list[list[tuple[str, str, str]]]) -> Iterator[dict[str, Any]]:
    for number, part in enumerate(asked):
        for place, (family, question, answer) in enumerate(part):
            yield {
                "question_id": f"{split}_{number:06d}_{place}",
                "image": image_name(split, number),
                "question": question,
                "answer": answer,
                "family": family,
                "format": "word",
            }


def _write_list(path: Path, records: list[dict[str, Any]]) -> None:
    """A JSON list with one record per line."""
    write_text(path, "[\n" + ",\n".join(json.dumps(record) for record in records) + "\n]\n")
