"""Text-aligned pre-training: an image is near the caption of its scene and far from other captions.

A caption is a set of objects and its embedding the sum of its words' embeddings, without cells: like CLIP's text side
it knows what is there better than where, or what belongs together. Hard negatives are captions with one word changed.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from mmexp.lab.dice import Dice
from mmexp.lab.world import COLORS, SHAPES, SIZES, Object, Scene

WORDS = {word: place for place, word in enumerate([*COLORS, *SHAPES, *SIZES])}
MAX_SCALE = 100.0


class SetContrast(nn.Module):
    """InfoNCE between pooled image features and bags of words, both ways.

    Args:
        embed_dim: width of the shared space.
        negatives: attribute that each hard negative of an image changes: ``color``, ``shape`` or ``size``; one
            negative per entry.
        dim: width of the pooled image features; a fact of the network.
    """

    def __init__(self, *, embed_dim: int, negatives: Sequence[str], dim: int) -> None:
        super().__init__()
        self.negatives = list(negatives)
        self.head = nn.Linear(dim, embed_dim, bias=False)
        self.words = nn.Embedding(len(WORDS), embed_dim)
        self.log_scale = nn.Parameter(torch.tensor(2.3))

    def loss(self, pooled: torch.Tensor, scenes: Sequence[Scene], dice: Dice) -> torch.Tensor:
        """Scalar, from pooled features (B, D) of the scenes' images."""
        image = functional.normalize(self.head(pooled), dim=-1)
        scale = self.log_scale.exp().clamp(max=MAX_SCALE)
        logits = self.logits(image, scenes) * scale
        wrong = [self.text([changed(scene, attribute, dice) for scene in scenes]) for attribute in self.negatives]
        hard = [scale * (image * text).sum(-1, keepdim=True) for text in wrong]
        target = torch.arange(len(scenes))
        forward = functional.cross_entropy(torch.cat([logits, *hard], dim=1), target)
        return forward + functional.cross_entropy(logits.t(), target)

    def logits(self, image: torch.Tensor, scenes: Sequence[Scene]) -> torch.Tensor:
        """(B, B) similarities of images and captions; captions that are the same as an image's own do not count."""
        keys = [tuple(sorted((item.color, item.shape, item.size) for item in scene.objects)) for scene in scenes]
        numbers = {key: place for place, key in enumerate(keys)}
        place = torch.tensor([numbers[key] for key in keys])
        same = (place[:, None] == place[None]) & ~torch.eye(len(scenes), dtype=torch.bool)
        return (image @ self.text(scenes).t()).masked_fill(same, -1e4)

    def text(self, scenes: Sequence[Scene]) -> torch.Tensor:
        """(B, embed_dim), of unit length."""
        ids = [
            [WORDS[word] for item in scene.objects for word in (item.color, item.shape, item.size)] for scene in scenes
        ]
        offsets = torch.tensor([0, *(len(part) for part in ids)]).cumsum(0)[:-1]
        flat = torch.tensor([number for part in ids for number in part])
        return functional.normalize(functional.embedding_bag(flat, self.words.weight, offsets, mode="sum"), dim=-1)

    @torch.no_grad()
    def check(self, pooled: torch.Tensor, scenes: Sequence[Scene]) -> dict[str, float]:
        """Percent of images whose nearest caption among those of the batch is their own."""
        image = functional.normalize(self.head(pooled), dim=-1)
        right = self.logits(image, scenes).argmax(1) == torch.arange(len(scenes))
        return {"retrieval": round(100 * float(right.float().mean()), 1)}


def changed(scene: Scene, attribute: str, dice: Dice) -> Scene:
    """The scene with one attribute of one object changed to a value that the object does not have."""
    values: Any = {"color": list(COLORS), "shape": SHAPES, "size": SIZES}[attribute]
    place = dice.below(len(scene.objects))
    item: Object = scene.objects[place]
    taken = [other.color for other in scene.objects] if attribute == "color" else [getattr(item, attribute)]
    free = [value for value in values if value not in taken] or [value for value in values if value != item.color]
    other = replace(item, **{attribute: dice.pick(free)})
    return Scene((*scene.objects[:place], other, *scene.objects[place + 1 :]))
