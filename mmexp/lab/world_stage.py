"""The drawn world on disk, in the formats that users bring: LLaVA JSON, QA JSONL and PNG."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmexp.data.choices import choice_lines
from mmexp.errors import UserError, nearest
from mmexp.files import replacing, write_text
from mmexp.interfaces import Turn
from mmexp.lab.pope import Statistics, pope_turns
from mmexp.lab.questions import Questioner, caption
from mmexp.lab.rng import Rng
from mmexp.lab.world import Scene, WorldSpec, draw_image, scenes

CAPTION_REQUEST = "describe the image."
TRIES_PER_IMAGE = 200


class WorldStage:
    """Draws splits that share no scene: ``images/<split>/*.png``, and annotations for each split.

    Captions go to ``<split>.json`` (LLaVA). Questions go to ``<split>.json`` (LLaVA, all questions of an image in one
    record, choices laid out in the text; no record for an image that nothing is asked about) or to ``<split>.jsonl``
    (question and answer, choices apart).

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
        qa: Sequence[str],
        held_out: Sequence[str],
        pope: Mapping[str, Any] | None,
        seed: int,
    ) -> None:
        self.spec = WorldSpec.from_config(world)
        self.captions, self.questions = dict(captions), {name: dict(node) for name, node in questions.items()}
        self.qa, self.held_out, self.seed = list(qa), list(held_out), seed
        self.sizes = {**self.captions, **{name: node.pop("images", 0) for name, node in self.questions.items()}}
        self.pope = dict(pope or {})
        for key, names in (("qa", self.qa), ("held_out", self.held_out)):
            for name in names:
                if name not in self.questions:
                    raise UserError(f"lab world: {key}: unknown split '{name}'; {nearest(name, self.questions)}")
        for key in ("split", "statistics") if self.pope else ():
            name = self.pope[key]
            if name not in self.sizes:
                raise UserError(f"lab world: pope.{key}: unknown split '{name}'; {nearest(name, self.sizes)}")
        for name, size in self.sizes.items():
            if size < 1:
                raise UserError(f"lab world: split '{name}': {size} images; must be at least 1")

    def run(self, workdir: Path, runtime: Mapping[str, Any]) -> None:
        """Write everything; images that a killed run left are kept."""
        drawn = self.draw_scenes()
        for split, number in zip(self.questions, range(1, len(self.questions) + 1), strict=True):
            questioner = Questioner(self.spec, self.questions[split], Rng(self.seed, 20, number))
            asked = [questioner.ask(scene) for scene in drawn[split]]
            questioner.check(f"lab world: split '{split}'")
            self._write_questions(workdir, split, asked)
        if self.pope:
            self._write_pope(workdir, drawn)
        for number, split in enumerate(self.captions):
            self._write_captions(workdir, split, drawn[split], Rng(self.seed, 21, number))
        self._write_images(workdir, drawn, runtime)

    def draw_scenes(self) -> dict[str, list[Scene]]:
        """Split -> scenes, all different. Raises ``UserError`` when the world has not enough scenes."""
        seen: set[str] = set()
        return {
            split: self._new_scenes(split, Rng(self.seed, 10, number), seen) for number, split in enumerate(self.sizes)
        }

    def _new_scenes(self, split: str, rng: Rng, seen: set[str]) -> list[Scene]:
        found: list[Scene] = []
        source = scenes(self.spec, rng, held_out=split in self.held_out)
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

    def _write_questions(self, workdir: Path, split: str, asked: list[list[Turn]]) -> None:
        if split in self.qa:
            _write_lines(workdir / f"{split}.jsonl", _qa_records(split, asked))
            return
        records = [_llava_record(split, number, part) for number, part in enumerate(asked) if part]
        _write_list(workdir / f"{split}.json", records)

    def _write_pope(self, workdir: Path, drawn: Mapping[str, list[Scene]]) -> None:
        split, statistics = self.pope["split"], Statistics(drawn[self.pope["statistics"]])
        rng = Rng(self.seed, 22)
        asked = [pope_turns(scene, statistics, self.pope["each"], rng) for scene in drawn[split][: self.pope["images"]]]
        _write_lines(workdir / "pope.jsonl", _qa_records(split, asked, "pope"))

    def _write_captions(self, workdir: Path, split: str, drawn: list[Scene], rng: Rng) -> None:
        records = [
            _llava_record(
                split,
                number,
                [Turn(question=CAPTION_REQUEST, answer=caption(self.spec, scene, rng), family="caption")],
            )
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
                    pixels = draw_image(self.spec, scene, Rng(self.seed, 11, number, place))
                    with replacing(path) as temporary:
                        Image.fromarray(pixels).save(temporary, "PNG", compress_level=1)
                bar.update()
                done += 1
                progress(done, total)
        bar.close()


def image_name(split: str, number: int) -> str:
    return f"{split}/{number:06d}.png"


def _llava_record(split: str, number: int, turns: Sequence[Turn]) -> dict[str, Any]:
    conversations: list[dict[str, Any]] = []
    for turn in turns:
        marker = "" if conversations else "<image>\n"
        value = marker + "\n".join([turn.question, *choice_lines(turn.choices)])
        human = {"from": "human", "value": value, "format": turn.response_format, "family": turn.family}
        conversations += [human, {"from": "gpt", "value": turn.answer}]
    return {"id": f"{split}_{number:06d}", "image": image_name(split, number), "conversations": conversations}


def _qa_records(split: str, asked: list[list[Turn]], name: str | None = None) -> Iterator[dict[str, Any]]:
    for number, part in enumerate(asked):
        for place, turn in enumerate(part):
            yield {
                "question_id": f"{name or split}_{number:06d}_{place}",
                "image": image_name(split, number),
                "question": turn.question,
                "answer": turn.answer,
                "family": turn.family,
                "format": turn.response_format,
                **({"choices": list(turn.choices)} if turn.choices else {}),
            }


def _write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """One JSON object per line."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


def _write_list(path: Path, records: list[dict[str, Any]]) -> None:
    """A JSON list with one record per line."""
    write_text(path, "[\n" + ",\n".join(json.dumps(record) for record in records) + "\n]\n")
