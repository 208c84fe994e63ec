"""Scenes as soft tokens: what an ideal projector would tell the language model.

A soft token stands where a visual token would stand, in row-major order of a token grid. It is the sum of the word
embeddings of its cell and of the object that covers it; tokens without an object have only their cell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mmexp.lab.dice import Dice
from mmexp.lab.world import Scene, WorldSpec, place_objects

FULL_COVER = 3
"""An object that covers a third of a token's patch fills the token."""
MAX_GAIN = 1.5


@dataclass(frozen=True, slots=True)
class SymbolicScenes:
    """Scenes of a batch as numbers: B scenes, K objects at most, N tokens each."""

    words: torch.Tensor  # (B, K, 3) ids of colour, shape and size
    cover: torch.Tensor  # (B, K, N) 0..1
    cells: torch.Tensor  # (N,) ids of the tokens' cells


@dataclass(frozen=True, kw_only=True, slots=True)
class Corruption:
    """How far soft tokens are from ideal ones; each scene gets its own amounts.

    A projector at the start of its training gives tokens in which the scene is coded, but not in the language model's
    words, on top of a large common part. A language model that was trained to find faint words in such tokens gives
    that projector a gradient.

    A scene has a severity of 0 to 1, which all amounts are multiplied by.

    Args:
        min_gain: colour, shape, size and cell words are each scaled by ``min_gain`` to ``MAX_GAIN``, log-uniform.
        cells: largest share of a token's cell that shows where no object is, 0..1.
        mixing: the scene in a random code (one per batch) is added with up to this weight.
        offset: a random vector is added to all tokens of a scene with up to this weight.
        noise: largest standard deviation of what is added to each token.
    """

    min_gain: float
    cells: float
    mixing: float
    offset: float
    noise: float


def symbolic_scenes(
    spec: WorldSpec, scenes: Sequence[Scene], grid: int, ids: Mapping[str, int], dice: Dice
) -> SymbolicScenes:
    """Objects of ``scenes``, placed as in images, seen through a token grid of ``grid`` x ``grid``."""
    most = max(len(scene.objects) for scene in scenes)
    words = np.zeros((len(scenes), most, 3), dtype=np.int64)
    cover = np.zeros((len(scenes), most, grid * grid), dtype=np.float32)
    patch = spec.image_size // grid
    for number, scene in enumerate(scenes):
        masks = place_objects(spec, scene, dice).reshape(-1, grid, patch, grid, patch)
        cover[number, : len(masks)] = masks.mean(axis=(2, 4)).reshape(len(masks), -1)
        for place, item in enumerate(scene.objects):
            words[number, place] = ids[item.color], ids[item.shape], ids[item.size]
    return SymbolicScenes(torch.from_numpy(words), torch.from_numpy(cover), _cell_ids(spec, grid, ids))


def soft_tokens(
    scenes: SymbolicScenes, embedding: torch.Tensor, corruption: Corruption | None, random: torch.Generator
) -> torch.Tensor:
    """(B, N, D) from the word embeddings (V, D); without ``corruption`` ideal ones with all cells."""
    fill = (scenes.cover * FULL_COVER).clamp(max=1)
    if corruption is None:
        return torch.einsum("bkn,bkd->bnd", fill, embedding[scenes.words].sum(2)) + embedding[scenes.cells]
    batch, dim = len(fill), embedding.shape[1]

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(batch, *shape, generator=random)

    severity = uniform()
    share = torch.where(fill.amax(1) > 0, 1.0, uniform(1) * corruption.cells)[..., None]
    gains = MAX_GAIN * (corruption.min_gain / MAX_GAIN) ** (severity[:, None] * uniform(4))
    words = torch.einsum("bkwd,bw->bkd", embedding[scenes.words], gains[:, :3])
    tokens = torch.einsum("bkn,bkd->bnd", fill, words) + gains[:, 3, None, None] * share * embedding[scenes.cells]
    with torch.no_grad():
        plain = torch.einsum("bkn,bkd->bnd", fill, embedding[scenes.words].sum(2)) + share * embedding[scenes.cells]
        code = torch.randn(dim, dim, generator=random) / dim**0.5
        tokens_of_code = corruption.mixing * severity[:, None, None] * uniform(1, 1) * (plain @ code)
        common = (
            corruption.offset * severity[:, None, None] * uniform(1, 1) * torch.randn(batch, 1, dim, generator=random)
        )
        noise = corruption.noise * severity[:, None, None] * uniform(1, 1) * torch.randn(plain.shape, generator=random)
    return tokens + tokens_of_code + common + noise


def _cell_ids(spec: WorldSpec, grid: int, ids: Mapping[str, int]) -> torch.Tensor:
    names = spec.cell_names()
    places = [place * spec.grid // grid for place in range(grid)]
    return torch.tensor([ids[names[row * spec.grid + column]] for row in places for column in places])
