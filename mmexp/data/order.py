"""In which order the samples of several datasets are seen.

Every order is a pure function of (seed, position, sizes): there is no state to save, a resumed run starts at its
position, and runs with the same seed see the same data.
"""

from collections.abc import Mapping
from typing import Protocol
from zlib import crc32

import numpy as np

BLOCKS_KEPT = 16


class Order(Protocol):
    """Which sample stands at a position."""

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(P,) int64 -> number of the dataset (P,), index in it (P,)."""

    def counts(self, num_positions: int) -> np.ndarray:
        """Samples of each dataset among the first positions, exactly: (datasets,)."""


class EpochOrder:
    """The concatenated datasets in a new permutation for each epoch."""

    def __init__(self, sizes: Mapping[str, int], seed: int) -> None:
        self.starts = np.concatenate([[0], np.cumsum(list(sizes.values()))])
        self.total = int(self.starts[-1])
        self.permutations = Permutations(seed, kept=2)

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        epochs, offsets = np.divmod(positions, self.total)
        places = np.empty(len(positions), dtype=np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            places[chosen] = self.permutations("all", self.total, int(epoch))[offsets[chosen]]
        datasets = np.searchsorted(self.starts, places, side="right") - 1
        return datasets, places - self.starts[datasets]

    def counts(self, num_positions: int) -> np.ndarray:
        epochs, rest = divmod(num_positions, self.total)
        places = self.permutations("all", self.total, epochs)[:rest]
        datasets = np.searchsorted(self.starts, places, side="right") - 1
        sizes = np.diff(self.starts)
        return epochs * sizes + np.bincount(datasets, minlength=len(sizes))


class WeightedOrder:
    """Each position draws its dataset by weight, independently.

    Positions are drawn in blocks: the counts of a block are multinomial and its order is a permutation, which together
    is the same as independent draws, and the counts before any block are known without drawing the blocks.

    Args:
        sizes: dataset -> samples.
        weights: dataset -> weight, not negative, at least one positive; they need not sum to one.
        seed: of all draws. A dataset's permutations depend on its name, not on what stands beside it.
        replacement: each visit of a dataset draws any of its samples; otherwise its samples come in permutations,
            each once before one comes again.
    """

    BLOCK = 1024

    def __init__(
        self, sizes: Mapping[str, int], weights: Mapping[str, float], seed: int, *, replacement: bool = False
    ) -> None:
        self.names, self.seed, self.replacement = list(sizes), seed, replacement
        self.sizes = np.array(list(sizes.values()), dtype=np.int64)
        shares = np.array([weights[name] for name in self.names], dtype=np.float64)
        self.shares = shares / shares.sum()
        self._before = np.zeros((1, len(self.names)), dtype=np.int64)  # counts before each block
        self.permutations = Permutations(seed, kept=2 * len(self.names))
        self._blocks: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        blocks, offsets = np.divmod(positions, self.BLOCK)
        datasets, visits = np.empty_like(positions), np.empty_like(positions)
        for block in np.unique(blocks):
            chosen = blocks == block
            drawn, visit = self._block(int(block))
            datasets[chosen], visits[chosen] = drawn[offsets[chosen]], visit[offsets[chosen]]
        if self.replacement:
            return datasets, visits
        epochs, rests = np.divmod(visits, self.sizes[datasets])
        indices = np.empty_like(positions)
        for dataset, epoch in np.unique(np.stack([datasets, epochs]), axis=1).T.tolist():
            chosen = (datasets == dataset) & (epochs == epoch)
            order = self.permutations(self.names[dataset], int(self.sizes[dataset]), epoch)
            indices[chosen] = order[rests[chosen]]
        return datasets, indices

    def counts(self, num_positions: int) -> np.ndarray:
        block, rest = divmod(num_positions, self.BLOCK)
        drawn, _ = self._block(block)
        return self._counts_before(block) + np.bincount(drawn[:rest], minlength=len(self.names))

    def _block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        if block not in self._blocks:
            if len(self._blocks) >= BLOCKS_KEPT:
                self._blocks.clear()
            self._blocks[block] = self._draw_block(block)
        return self._blocks[block]

    def _draw_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Dataset of each position of a block, and number of the visit to it, or with replacement the index."""
        before = self._counts_before(block)
        here = self._counts_before(block + 1) - before
        drawn = generator(self.seed, "block", block).permutation(np.repeat(np.arange(len(here)), here))
        if self.replacement:
            return drawn, generator(self.seed, "replacement", block).integers(self.sizes[drawn])
        visits = np.empty(self.BLOCK, dtype=np.int64)
        for dataset in range(len(here)):
            visits[drawn == dataset] = before[dataset] + np.arange(here[dataset])
        return drawn, visits

    def _counts_before(self, block: int) -> np.ndarray:
        if block >= len(self._before):
            number = 2 * block + 1
            drawn = generator(self.seed, "counts", 0).multinomial(self.BLOCK, self.shares, size=number)
            self._before = np.concatenate([np.zeros((1, len(self.names)), dtype=np.int64), np.cumsum(drawn, axis=0)])
        return self._before[block]


def generator(seed: int, purpose: str, number: int) -> np.random.Generator:
    """A stream of its own for each (seed, purpose, number)."""
    return np.random.default_rng([seed, crc32(purpose.encode()), number])


class Permutations:
    """Permutations of a run, the last ``kept`` of them in memory."""

    def __init__(self, seed: int, kept: int) -> None:
        self.seed, self.kept = seed, kept
        self._made: dict[tuple[str, int], np.ndarray] = {}

    def __call__(self, name: str, size: int, epoch: int) -> np.ndarray:
        """Of ``size`` samples, for an epoch of what is called ``name``."""
        if (name, epoch) not in self._made:
            if len(self._made) >= self.kept:
                self._made.pop(next(iter(self._made)))
            self._made[name, epoch] = generator(self.seed, f"permutation of {name}", epoch).permutation(size)
        return self._made[name, epoch]
