"""Text-aligned pre-training: an image is close to the caption of its scene and far from other captions.

A caption is a set of objects, and of what is written on the sign; its embedding is the sum of its words' embeddings,
without cells: like CLIP's text side it knows what is there better than where, or what belongs together. Hard negatives
are captions with one word changed.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from mmexp.errors import UserError, nearest
from mmexp.interfaces import FeatureShape
from mmexp.lab.drawn import OBJECT_VALUES, SIGN_VALUES, Drawn, labelled_loss
from mmexp.lab.objective import Look, Objective
from mmexp.lab.rng import Rng
from mmexp.lab.world import Scene

VALUES = {**OBJECT_VALUES, **SIGN_VALUES}
NUMBERS = {pair: place for place, pair in enumerate((kind, word) for kind in VALUES for word in VALUES[kind])}
MAX_SCALE = 100.0


class SetContrast(Objective):
    """InfoNCE between pooled image features and bags of words, both ways (CLIP, arXiv:2103.00020, figure 3).

    Args:
        embed_dim: width of the shared space.
        negatives: attribute that each hard negative of an image changes: ``color``, ``shape`` or ``size``; one
            negative per entry.
        place_weight: weight of a term by which each token tells its own place. A mean over tokens does not need
            places, and small networks lose them with depth; in large ViTs they stay readable.
        shape: of the encoder's deepest tap; a fact of the network.

    Raises:
        UserError: an unknown attribute.
    """

    def __init__(self, *, embed_dim: int, negatives: Sequence[str], place_weight: float, shape: FeatureShape) -> None:
        super().__init__()
        for name in negatives:
            if name not in OBJECT_VALUES:
                raise UserError(f"objective.negatives: unknown attribute '{name}'; {nearest(name, OBJECT_VALUES)}")
        self.negatives, self.place_weight = list(negatives), place_weight
        self.place = nn.Linear(shape.dim, shape.num_tokens)
        self.head = nn.Linear(shape.dim, embed_dim, bias=False)
        self.words = nn.Embedding(len(NUMBERS), embed_dim)
        self.log_scale = nn.Parameter(torch.tensor(2.3))

    def loss(self, look: Look, drawn: Drawn, rng: Rng) -> torch.Tensor:
        tokens = look(drawn.views).tokens
        image = self.image(tokens)
        scale = self.log_scale.exp().clamp(max=MAX_SCALE)
        logits = self.logits(image, drawn.scenes) * scale
        wrong = [self.text([changed(scene, name, rng) for scene in drawn.scenes]) for name in self.negatives]
        hard = [scale * (image * text).sum(-1, keepdim=True) for text in wrong]
        target = torch.arange(len(drawn.scenes))
        forward = functional.cross_entropy(torch.cat([logits, *hard], dim=1), target)
        return forward + functional.cross_entropy(logits.t(), target) + self.extra(tokens, drawn)

    def extra(self, tokens: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """Terms beside the contrast."""
        places = torch.arange(tokens.shape[1]).expand(len(tokens), -1)
        return self.place_weight * labelled_loss(self.place(tokens), places)

    def image(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, embed_dim), of unit length, from the mean of the tokens."""
        return functional.normalize(self.head(tokens.mean(1)), dim=-1)

    def logits(self, image: torch.Tensor, scenes: Sequence[Scene]) -> torch.Tensor:
        """(B, B) similarities of images and captions; captions that are the same as an image's own do not count."""
        keys = [tuple(sorted(words_of(scene))) for scene in scenes]
        numbers = {key: place for place, key in enumerate(keys)}
        place = torch.tensor([numbers[key] for key in keys])
        same = (place[:, None] == place[None]) & ~torch.eye(len(scenes), dtype=torch.bool)
        return (image @ self.text(scenes).t()).masked_fill(same, -1e4)

    def text(self, scenes: Sequence[Scene]) -> torch.Tensor:
        """(B, embed_dim), of unit length."""
        ids = [words_of(scene) for scene in scenes]
        offsets = torch.tensor([0, *(len(part) for part in ids)]).cumsum(0)[:-1]
        flat = torch.tensor([number for part in ids for number in part])
        return functional.normalize(functional.embedding_bag(flat, self.words.weight, offsets, mode="sum"), dim=-1)

    @torch.no_grad()
    def check(self, look: Look, drawn: Drawn) -> dict[str, float]:
        """Percent of images whose nearest caption among those of the batch is their own."""
        image = self.image(look(drawn.views).tokens)
        right = self.logits(image, drawn.scenes).argmax(1) == torch.arange(len(drawn.scenes))
        return {"retrieval": round(100 * float(right.float().mean()), 1)}


class WordContrast(SetContrast):
    """As ``SetContrast``, and the image tells which words its caption has (as SuperClass does instead of contrast,
    arXiv:2411.03313): a signal for networks that contrast alone hardly trains.

    Args:
        word_weight: weight of that term, a binary cross entropy summed over the words.
        others: of ``SetContrast``.
    """

    def __init__(
        self, *, embed_dim: int, negatives: Sequence[str], place_weight: float, word_weight: float, shape: FeatureShape
    ) -> None:
        super().__init__(embed_dim=embed_dim, negatives=negatives, place_weight=place_weight, shape=shape)
        self.word_weight = word_weight
        self.told = nn.Linear(shape.dim, len(NUMBERS))

    def extra(self, tokens: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        told = functional.binary_cross_entropy_with_logits(self.told(tokens.mean(1)), words_in(drawn.scenes))
        return super().extra(tokens, drawn) + self.word_weight * len(NUMBERS) * told


def words_in(scenes: Sequence[Scene]) -> torch.Tensor:
    """(B, words) float: 1 for each word that a scene's caption has."""
    found = torch.zeros(len(scenes), len(NUMBERS))
    for row, scene in enumerate(scenes):
        found[row, words_of(scene)] = 1.0
    return found


def words_of(scene: Scene) -> list[int]:
    """Numbers of a caption's words; a number on the sign is a word for its tens and one for its ones."""
    pairs = [(name, getattr(item, name)) for item in scene.objects for name in OBJECT_VALUES]
    if scene.sign:
        text = scene.sign.text
        pairs += [("tens", text[0]), ("ones", text[1])] if text.isdigit() else [("word", text)]
    return [NUMBERS[pair] for pair in pairs]


def changed(scene: Scene, attribute: str, rng: Rng) -> Scene:
    """The scene with one attribute of one object changed to a value that the object does not have."""
    values = OBJECT_VALUES[attribute]
    place = rng.below(len(scene.objects))
    item = scene.objects[place]
    taken = [other.color for other in scene.objects] if attribute == "color" else [getattr(item, attribute)]
    free = [value for value in values if value not in taken] or [value for value in values if value != item.color]
    change: dict[str, Any] = {attribute: rng.pick(free)}
    other = replace(item, **change)
    return replace(scene, objects=(*scene.objects[:place], other, *scene.objects[place + 1 :]))
