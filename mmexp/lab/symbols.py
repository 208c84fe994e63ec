"""Scenes as soft tokens: what an ideal projector would give the language model.

Soft tokens take the places of visual tokens, in row-major order of a token grid. It is the sum of the word
embeddings of its cell and of what covers it: colour, shape and size of an object, or "sign" and the tokens of a sign's
text. Tokens that nothing covers have only their cell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mmexp.lab.rng import Rng
from mmexp.lab.world import Scene, WorldSpec, place_objects, place_sign

FULL_COVER = 3
"""An object that covers a third of a token's patch fills the token."""
MAX_GAIN = 1.5


@dataclass(frozen=True, slots=True)
class SymbolicScenes:
    """Scenes of a batch as numbers: B scenes, K objects and signs at most, N tokens each."""

    words: torch.Tensor  # (B, K, 3) ids of colour, shape and size, or of a sign's text and "sign"; -1 for none
    is_sign: torch.Tensor  # (B, K) bool
    cover: torch.Tensor  # (B, K, N) 0..1
    cells: torch.Tensor  # (N,) ids of the tokens' cells


@dataclass(frozen=True, kw_only=True, slots=True)
class Corruption:
    """How far soft tokens are from ideal ones; each scene gets its own amounts.

    A projector at the start of its training gives tokens in which the scene is coded, but not in the language model's
    words, on top of a large common part. A language model that was trained to find faint words in such tokens gives
    that projector a gradient.

    Amounts are drawn apart from each other, so that any mix of weak and strong occurs; the rest of the scenes is ideal.

    Args:
        percent: share of the scenes that are corrupted, 0..100.
        min_gain: the words of each kind (colour, shape, size, cell, those of a sign) are scaled by ``min_gain`` to
            ``MAX_GAIN``, log-uniform.
        cells: largest share of a token's cell that shows where no object is, 0..1.
        mixing: the scene in a random code (one per batch) is added with up to this weight.
        offset: a random vector is added to all tokens of a scene with up to this weight.
        noise: largest standard deviation of what is added to each token.
    """

    percent: float
    min_gain: float
    cells: float
    mixing: float
    offset: float
    noise: float


def symbolic_scenes(
    spec: WorldSpec, scenes: Sequence[Scene], grid: int, ids: Mapping[str, int], rng: Rng
) -> SymbolicScenes:
    """Objects and signs of ``scenes``, placed as in images, seen through a token grid of ``grid`` x ``grid``."""
    most = max(len(scene.objects) for scene in scenes) + 1
    words = np.full((len(scenes), most, 3), -1, dtype=np.int64)
    is_sign = np.zeros((len(scenes), most), dtype=bool)
    cover = np.zeros((len(scenes), most, grid * grid), dtype=np.float32)
    patch = spec.image_size // grid
    for number, scene in enumerate(scenes):
        masks = place_objects(spec, scene, rng)
        if scene.sign:
            masks = np.concatenate([masks, place_sign(spec, scene.sign)[None]])
            parts = [ids["sign"], *(ids[part] for part in text_parts(scene.sign.text))]
            words[number, len(masks) - 1, : len(parts)] = parts
            is_sign[number, len(masks) - 1] = True
        tokens = masks.reshape(-1, grid, patch, grid, patch).mean(axis=(2, 4))
        cover[number, : len(masks)] = tokens.reshape(len(masks), -1)
        for place, item in enumerate(scene.objects):
            words[number, place] = ids[item.color], ids[item.shape], ids[item.size]
    arrays = torch.from_numpy(words), torch.from_numpy(is_sign), torch.from_numpy(cover)
    return SymbolicScenes(*arrays, _cell_ids(spec, grid, ids))


def text_parts(text: str) -> list[str]:
    """Tokens of a sign's text: a word, or tens and ``##`` ones."""
    return [text[0], f"##{text[1]}"] if text.isdigit() else [text]


def soft_tokens(
    scenes: SymbolicScenes, embedding: torch.Tensor, corruption: Corruption | None, random: torch.Generator
) -> torch.Tensor:
    """(B, N, D) from the word embeddings (V, D); without ``corruption`` ideal ones with all cells."""
    fill = (scenes.cover * FULL_COVER).clamp(max=1)
    shown = embedding[scenes.words.clamp(min=0)] * (scenes.words >= 0)[..., None]  # (B, K, 3, D)
    if corruption is None:
        return torch.einsum("bkn,bkd->bnd", fill, shown.sum(2)) + embedding[scenes.cells]
    batch, dim = len(fill), embedding.shape[1]

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(batch, *shape, generator=random)

    corrupt = (uniform() * 100 < corruption.percent).float()
    share = torch.where(fill.amax(1) > 0, 1.0, uniform(1) * corruption.cells)[..., None]
    gains = MAX_GAIN * (corruption.min_gain / MAX_GAIN) ** uniform(7)
    gains = torch.where(corrupt[:, None] > 0, gains, 1.0)
    word_gains = torch.where(scenes.is_sign[..., None], gains[:, None, 3:6], gains[:, None, :3])
    words = torch.einsum("bkwd,bkw->bkd", shown, word_gains)
    tokens = torch.einsum("bkn,bkd->bnd", fill, words) + gains[:, 6, None, None] * share * embedding[scenes.cells]
    with torch.no_grad():
        plain = torch.einsum("bkn,bkd->bnd", fill, shown.sum(2)) + share * embedding[scenes.cells]
        code = torch.randn(dim, dim, generator=random) / dim**0.5

        def amount(most: float) -> torch.Tensor:
            return most * corrupt[:, None, None] * uniform(1, 1)

        tokens_of_code = amount(corruption.mixing) * (plain @ code)
        common = amount(corruption.offset) * torch.randn(batch, 1, dim, generator=random)
        noise = amount(corruption.noise) * torch.randn(plain.shape, generator=random)
    return tokens + tokens_of_code + common + noise


def _cell_ids(spec: WorldSpec, grid: int, ids: Mapping[str, int]) -> torch.Tensor:
    names = spec.cell_names()
    places = [place * spec.grid // grid for place in range(grid)]
    return torch.tensor([ids[names[row * spec.grid + column]] for row in places for column in places])
