"""Several datasets as one stream of samples."""

from collections.abc import Mapping, Sequence

import numpy as np

from mmexp.data.balance import Balance
from mmexp.data.order import generator
from mmexp.errors import UserError
from mmexp.interfaces import Sample, Source

Place = tuple[int, int]
"""(number of the dataset, index in it)."""


class Mixture:
    """The sample at any position of a training run, as a pure function of the position.

    Args:
        datasets: name -> source; one that has ``shard_sizes`` is read shard by shard.
        balance: the strategy.
        seed: not negative.

    Raises:
        UserError: no dataset, or an empty one.
    """

    def __init__(self, *, datasets: Mapping[str, Source], balance: Balance, seed: int) -> None:
        if not datasets:
            raise UserError("data.datasets: is empty; a mixture needs at least one dataset")
        self.names, self.sources, self.seed = list(datasets), list(datasets.values()), seed
        self.sizes = {name: len(source) for name, source in datasets.items()}
        empty = [name for name, size in self.sizes.items() if size == 0]
        if empty:
            raise UserError(f"data.datasets.{empty[0]}: has no samples")
        shards = {name: source.shard_sizes for name, source in datasets.items() if hasattr(source, "shard_sizes")}
        self.order = balance.order(self.sizes, seed, shards)

    def __len__(self) -> int:
        """Samples of all datasets together."""
        return sum(self.sizes.values())

    def places(self, positions: Sequence[int] | np.ndarray) -> list[Place]:
        """Where the samples of these positions stand."""
        datasets, indices = self.order.locate(np.asarray(positions, dtype=np.int64))
        return list(zip(datasets.tolist(), indices.tolist(), strict=True))

    def substitute(self, position: int, attempt: int) -> Place:
        """Another sample of the same dataset for a position whose sample is bad: pure function, like the order."""
        dataset, _ = self.places([position])[0]
        size = len(self.sources[dataset])
        return dataset, int(generator(self.seed, f"substitute {attempt}", position).integers(size))

    def sample(self, place: Place) -> Sample:
        """Raises ``BadSample`` for a bad record."""
        dataset, index = place
        return self.sources[dataset][index]

    def counts(self, num_positions: int) -> dict[str, int]:
        """Samples of each dataset among the first positions, exactly."""
        return dict(zip(self.names, self.order.counts(num_positions).tolist(), strict=True))
