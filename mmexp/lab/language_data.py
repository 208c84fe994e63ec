"""Conversations about symbolic scenes, made by the very code that makes the fine-tuning batches.

Three ways to talk about a scene: its questions as separate conversations behind one image, the same questions as one
multi-turn conversation, and a caption in template ``plain``. The response-format prompt comes after the question,
before it, or not at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mmexp.data.batching import make_batch, make_blocks
from mmexp.data.images import LoadedImage
from mmexp.data.template import Template
from mmexp.data.tokenize import ConversationTokenizer
from mmexp.data.turns import MultiTurn, SingleTurn
from mmexp.interfaces import IGNORE_INDEX, Batch, Turn
from mmexp.lab.questions import Questioner, caption
from mmexp.lab.rng import Rng
from mmexp.lab.symbols import SymbolicScenes, symbolic_scenes
from mmexp.lab.world import Scene, WorldSpec, scenes

MAX_LENGTH = 1024
SYMBOLIC = Path("symbolic scene")


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """How the scenes of a batch are talked about."""

    template: str
    format_prompt: str
    """``after``, ``before`` or ``none``."""
    multi_turn: bool
    caption: bool
    grid: int
    """Tokens per side of the symbolic image."""


@dataclass(frozen=True, slots=True)
class SymbolicBatch:
    """A packed batch, what its placeholders stand for, and the family of every trained stretch, row by row."""

    batch: Batch
    scenes: SymbolicScenes
    families: list[list[str]]


class SymbolicData:
    """Batches of symbolic scenes in any style.

    Args:
        spec: the world that scenes are drawn from.
        tokenizer: the lab's.
        templates: name -> template; ``plain`` for captions.
        questions: family -> questions per scene.
    """

    def __init__(
        self, spec: WorldSpec, tokenizer: Any, templates: Mapping[str, Template], questions: Mapping[str, int]
    ) -> None:
        self.spec, self.tokenizer, self.templates, self.questions = spec, tokenizer, templates, dict(questions)
        self.word_ids: dict[str, int] = tokenizer.get_vocab()
        self._tokenizers: dict[tuple[str, str, int], ConversationTokenizer] = {}

    def batch(self, rng: Rng, size: int, style: Style, *, held_out: bool) -> SymbolicBatch:
        """``size`` new scenes, all drawn from ``rng``."""
        source = scenes(self.spec, rng, held_out=held_out)
        drawn = [next(source) for _ in range(size)]
        questioner = Questioner(self.spec, self.questions, rng)
        turns = [self._turns(scene, style, questioner, rng) for scene in drawn]
        blocks = [block for part in turns for block in self._blocks(part, style)]
        assert len(blocks) == size
        image = LoadedImage(size=(style.grid, style.grid), num_views=1, views={})
        batch = make_batch(blocks, [image] * size, [[number] for number in range(size)])
        symbols = symbolic_scenes(self.spec, drawn, style.grid, self.word_ids, rng)
        return SymbolicBatch(batch, symbols, [[turn.family for turn in part] for part in turns])

    def _turns(self, scene: Scene, style: Style, questioner: Questioner, rng: Rng) -> list[Turn]:
        if style.caption:
            return [Turn(question="", answer=caption(self.spec, scene, rng), family="caption")]
        return questioner.ask(scene)

    def _blocks(self, turns: Sequence[Turn], style: Style) -> list[Any]:
        tokenize = self._tokenizer("plain" if style.caption else style.template, style.format_prompt, style.grid)
        parts = (MultiTurn() if style.multi_turn else SingleTurn()).split(turns)
        size = (style.grid, style.grid)
        conversations = [tokenize.conversation(part, SYMBOLIC, size, "symbolic", "lab") for part in parts]
        return make_blocks(conversations, "shared_prefix", MAX_LENGTH)

    def _tokenizer(self, name: str, format_prompt: str, grid: int) -> ConversationTokenizer:
        key = (name, format_prompt, grid)
        if key not in self._tokenizers:
            self._tokenizers[key] = ConversationTokenizer(
                tokenizer=self.tokenizer,
                template=replace(self.templates[name], format_prompt=format_prompt),
                num_visual_tokens=lambda size: size[0] * size[1],
                max_length=MAX_LENGTH,
            )
        return self._tokenizers[key]


def trained_stretches(labels: torch.Tensor) -> torch.Tensor:
    """(B, T) labels -> (B, T) number of the trained stretch that a position belongs to within its row, -1 for none."""
    trained = labels != IGNORE_INDEX
    before = torch.nn.functional.pad(trained, (1, 0))[:, :-1]
    number = (trained & ~before).cumsum(1) - 1
    return number.masked_fill(~trained, -1)
