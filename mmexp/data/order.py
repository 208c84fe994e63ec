"""In which order the samples of several datasets are seen.

Every order is a pure function of (seed, position, sizes): there is no state to save, a resumed run starts at its
position, and runs with the same seed see the same data.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol
from zlib import crc32

import numpy as np

from mmexp.errors import UserError

BLOCKS_KEPT = 16
SHARDS_OPEN = 8
"""Shards that are read at the same time; samples are shuffled among them."""

Shards = Mapping[str, Sequence[int]]
"""Dataset in shards -> samples of each shard. Such a dataset is walked through shard by shard."""


class Order(Protocol):
    """Which sample stands at a position."""

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(P,) int64 -> number of the dataset (P,), index in it (P,)."""

    def counts(self, num_positions: int) -> np.ndarray:
        """Samples of each dataset among the first positions, exactly: (datasets,)."""


class EpochOrder:
    """The concatenated datasets in a new permutation for each epoch.

    Raises:
        UserError: several datasets, one of them in shards: shuffling all samples would open all shards all the time.
    """

    def __init__(self, sizes: Mapping[str, int], seed: int, shards: Shards) -> None:
        if shards and len(sizes) > 1:
            raise UserError(
                f"balance: by_size shuffles all samples together, and dataset '{next(iter(shards))}' is in shards, "
                "which are read one after the other; choose another balance, for example tuned or per_dataset"
            )
        self.starts = np.concatenate([[0], np.cumsum(list(sizes.values()))])
        self.total = int(self.starts[-1])
        self.permutations = Permutations(seed, kept=2)
        self.walk = ShardWalk(*next(iter(shards.items())), seed) if shards else None

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        epochs, offsets = np.divmod(positions, self.total)
        places = np.empty(len(positions), dtype=np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            if self.walk:
                places[chosen] = self.walk.indices(int(epoch), offsets[chosen])
                continue
            places[chosen] = self.permutations("all", self.total, int(epoch))[offsets[chosen]]
        # The dataset of a place is the last one that starts at or before it.
        datasets = np.searchsorted(self.starts, places, side="right") - 1
        return datasets, places - self.starts[datasets]

    def counts(self, num_positions: int) -> np.ndarray:
        if self.walk:
            return np.array([num_positions])
        epochs, rest = divmod(num_positions, self.total)
        places = self.permutations("all", self.total, epochs)[:rest]
        datasets = np.searchsorted(self.starts, places, side="right") - 1
        sizes = np.diff(self.starts)
        return epochs * sizes + np.bincount(datasets, minlength=len(sizes))


class SubsetOrder:
    """An epoch order of a random fraction of each dataset's samples.

    Args:
        sizes: dataset -> samples.
        fraction: of each dataset, above 0; at least one sample stays.
        seed: of all draws. Which samples of a dataset stay depends on its name, not on the other datasets, and those
            of a smaller fraction are among those of a larger one.
    """

    def __init__(self, sizes: Mapping[str, int], fraction: float, seed: int) -> None:
        self.kept = [
            generator(seed, f"subset of {name}", 0).permutation(size)[: max(1, round(fraction * size))]
            for name, size in sizes.items()
        ]
        left = {name: len(kept) for name, kept in zip(sizes, self.kept, strict=True)}
        self.epochs = EpochOrder(left, seed, {})

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        datasets, places = self.epochs.locate(positions)
        indices = np.empty_like(places)
        for dataset in np.unique(datasets):
            chosen = datasets == dataset
            indices[chosen] = self.kept[dataset][places[chosen]]
        return datasets, indices

    def counts(self, num_positions: int) -> np.ndarray:
        return self.epochs.counts(num_positions)


class WeightedOrder:
    """Each position draws its dataset by weight, independently.

    Positions are drawn in blocks: the counts of a block are multinomial and its order is a permutation, which together
    is the same as independent draws, and the counts before any block are known without drawing the blocks.

    Args:
        sizes: dataset -> samples.
        weights: dataset -> weight, not negative, at least one positive; they need not sum to one.
        seed: of all draws. A dataset's permutations depend on its name, not on the other datasets.
        replacement: each visit of a dataset draws any of its samples; otherwise its samples come in permutations,
            each once before one comes again. A dataset in shards comes shard by shard either way.
        shards: of the datasets that are in shards.
    """

    BLOCK = 1024

    def __init__(
        self,
        sizes: Mapping[str, int],
        weights: Mapping[str, float],
        seed: int,
        *,
        replacement: bool = False,
        shards: Shards | None = None,
    ) -> None:
        self.names, self.seed = list(sizes), seed
        self.walks = {self.names.index(name): ShardWalk(name, parts, seed) for name, parts in (shards or {}).items()}
        self.drawn_anew = np.array([replacement and place not in self.walks for place in range(len(self.names))])
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
        indices = visits.copy()  # with replacement, a visit already is an index
        walked = ~self.drawn_anew[datasets]
        epochs, rests = np.divmod(visits, self.sizes[datasets])
        for dataset, epoch in np.unique(np.stack([datasets, epochs])[:, walked], axis=1).T.tolist():
            chosen = (datasets == dataset) & (epochs == epoch)
            indices[chosen] = self._walked(dataset, epoch, rests[chosen])
        return datasets, indices

    def _walked(self, dataset: int, epoch: int, rests: np.ndarray) -> np.ndarray:
        """Indices at some places of one epoch of a dataset."""
        if dataset in self.walks:
            return self.walks[dataset].indices(epoch, rests)
        return self.permutations(self.names[dataset], int(self.sizes[dataset]), epoch)[rests]

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
        """Dataset of each position of a block; and number of the visit to it, or with replacement the index."""
        before = self._counts_before(block)
        here = self._counts_before(block + 1) - before
        drawn = generator(self.seed, "block", block).permutation(np.repeat(np.arange(len(here)), here))
        # A dataset's visits are numbered over the whole run: visit // size is its epoch, wherever its blocks begin.
        visits = np.empty(self.BLOCK, dtype=np.int64)
        for dataset in range(len(here)):
            visits[drawn == dataset] = before[dataset] + np.arange(here[dataset])
        if self.drawn_anew.any():
            anew = generator(self.seed, "replacement", block).integers(self.sizes[drawn])
            visits = np.where(self.drawn_anew[drawn], anew, visits)
        return drawn, visits

    def _counts_before(self, block: int) -> np.ndarray:
        # All blocks' counts come from one stream, row after row: a longer draw begins with the same rows, so how far it
        # went so far changes nothing. Doubling keeps the redrawing cheap.
        if block >= len(self._before):
            number = 2 * block + 1
            drawn = generator(self.seed, "counts", 0).multinomial(self.BLOCK, self.shares, size=number)
            self._before = np.concatenate([np.zeros((1, len(self.names)), dtype=np.int64), np.cumsum(drawn, axis=0)])
        return self._before[block]


def generator(seed: int, purpose: str, number: int) -> np.random.Generator:
    """A stream of its own for each (seed, purpose, number)."""
    # crc32 and not hash(): Python's hash of a text differs from process to process.
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


class ShardWalk:
    """The order of a dataset in shards: shards in a permutation of each epoch, a few of them at a time, their samples
    shuffled together. Every sample once per epoch; each shard is read in one stretch; no state, as for every order.

    Args:
        name: of the dataset.
        sizes: samples of each shard.
        seed: of all draws.
    """

    def __init__(self, name: str, sizes: Sequence[int], seed: int) -> None:
        self.name, self.seed = name, seed
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.starts = np.cumsum(self.sizes) - self.sizes
        self._groups: dict[tuple[int, int], np.ndarray] = {}
        self._epoch: tuple[int, np.ndarray, np.ndarray] | None = None

    def indices(self, epoch: int, rests: np.ndarray) -> np.ndarray:
        """Places of an epoch, 0 to the number of samples - 1 -> indices in the dataset."""
        _, ends = self._order(epoch)
        groups = np.searchsorted(ends, rests, side="right")
        found = np.empty_like(rests)
        for group in np.unique(groups).tolist():
            chosen = groups == group
            found[chosen] = self._group(epoch, group)[rests[chosen] - (ends[group - 1] if group else 0)]
        return found

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Shards in the epoch's order, and the place where each group of them ends."""
        if self._epoch is None or self._epoch[0] != epoch:
            order = generator(self.seed, f"shards of {self.name}", epoch).permutation(len(self.sizes))
            totals = np.add.reduceat(self.sizes[order], np.arange(0, len(order), SHARDS_OPEN))
            self._epoch = (epoch, order, np.cumsum(totals))
        return self._epoch[1:]

    def _group(self, epoch: int, group: int) -> np.ndarray:
        """Indices of the group's samples, shuffled."""
        if (epoch, group) not in self._groups:
            order, _ = self._order(epoch)
            shards = order[group * SHARDS_OPEN : (group + 1) * SHARDS_OPEN].tolist()
            inside = np.concatenate([self.starts[shard] + np.arange(self.sizes[shard]) for shard in shards])
            if len(self._groups) >= BLOCKS_KEPT:
                self._groups.pop(next(iter(self._groups)))
            rng = generator(self.seed, f"epoch {epoch} of {self.name}", group)
            self._groups[epoch, group] = rng.permutation(inside)
        return self._groups[epoch, group]
