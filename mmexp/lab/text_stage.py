"""Text-only conversations about scenes that are described instead of shown: the lab's text-only dataset."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmexp.data.choices import choice_lines
from mmexp.errors import UserError
from mmexp.files import write_text
from mmexp.lab.questions import Questioner, caption
from mmexp.lab.rng import Rng
from mmexp.lab.world import Scene, WorldSpec, scenes

FILE = "described.json"


class TextStage:
    """Writes ``described.json`` (LLaVA records without image): each question after the description of its scene.

    Args:
        world: node ``lab.world``.
        conversations: how many.
        questions: family -> questions in each.
        seed: of all drawing.

    Raises:
        UserError: a world that cannot be drawn, unknown families, no conversation.
    """

    VERSION = 2

    def __init__(
        self, *, world: Mapping[str, int], conversations: int, questions: Mapping[str, int], seed: int
    ) -> None:
        self.spec, self.questions, self.seed = WorldSpec.from_config(world), dict(questions), seed
        if conversations < 1:
            raise UserError(f"lab text: conversations: {conversations} must be at least 1")
        self.conversations = conversations

    def run(self, workdir: Path, runtime: Mapping[str, Any]) -> None:
        """Draw the scenes (none that is held out) and write the conversations."""
        questioner = Questioner(self.spec, self.questions, Rng(self.seed, 30))
        source, order = scenes(self.spec, Rng(self.seed, 31), held_out=False), Rng(self.seed, 32)
        records = [
            self._record(number, scene, questioner, order)
            for number, scene in zip(range(self.conversations), source, strict=False)
        ]
        questioner.check("lab text")
        write_text(workdir / FILE, "[\n" + ",\n".join(json.dumps(record) for record in records) + "\n]\n")

    def _record(self, number: int, scene: Scene, questioner: Questioner, order: Rng) -> dict[str, Any]:
        conversations: list[dict[str, str | None]] = []
        for turn in questioner.ask(scene):
            question = "\n".join([turn.question, *choice_lines(turn.choices)])
            value = f"{caption(self.spec, scene, order)}. {question}"
            conversations += [
                {"from": "human", "value": value, "format": turn.response_format, "family": turn.family},
                {"from": "gpt", "value": turn.answer},
            ]
        return {"id": f"described_{number:06d}", "conversations": conversations}
