"""Balancing strategies: how often the samples of each dataset are seen (papers/honeybee.md, section 5.2).

A dataset's size is its number of samples as its source counts them: with questions grouped by image, its images.
Whatever is left out, the weights of the others are divided by their sum (Honeybee's table 4 does not say how).
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from mmexp.data.order import EpochOrder, Order, Shards, SubsetOrder, WeightedOrder
from mmexp.errors import UserError, nearest


class Balance(Protocol):
    """A strategy."""

    def needed(self, names: Sequence[str]) -> list[str]:
        """Of the datasets of a mixture those that it can ever draw from, in their order; others are not opened."""

    def shares(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """Dataset -> expected share of the samples; they sum to 1."""

    def order(self, sizes: Mapping[str, int], seed: int, shards: Shards) -> Order:
        """The order for datasets of given sizes (name -> number of samples)."""


class BySize:
    """All datasets one after the other, shuffled: every sample once per epoch (LLaVA-1.5, papers/llava15.md)."""

    def needed(self, names: Sequence[str]) -> list[str]:
        return list(names)

    def shares(self, sizes: Mapping[str, int]) -> dict[str, float]:
        return normalised(sizes)

    def order(self, sizes: Mapping[str, int], seed: int, shards: Shards) -> Order:
        return EpochOrder(sizes, seed, shards)


class Selection:
    """Base of the strategies that can leave datasets out.

    Args:
        tasks: dataset -> task, or None; needed only where a task is named.
        leave_out: datasets and tasks that are not drawn from.
        only: datasets and tasks that alone are drawn from; None for all.
    """

    def __init__(
        self, *, tasks: Mapping[str, str] | None, leave_out: Sequence[str], only: Sequence[str] | None
    ) -> None:
        self.tasks, self.leave_out, self.only = tasks or {}, leave_out, only

    def needed(self, names: Sequence[str]) -> list[str]:
        """Raises ``UserError`` for an unknown name in ``leave_out`` or ``only``, or when nothing is left."""
        known = [*names, *dict.fromkeys(self.tasks[name] for name in names if name in self.tasks)]
        for key, chosen in (("leave_out", self.leave_out), ("only", self.only or ())):
            for name in chosen:
                if name not in known:
                    raise UserError(f"balance.{key}: no dataset or task '{name}'; {nearest(str(name), known)}")
        left = [name for name in names if self._is_drawn(name)]
        if not left:
            raise UserError("balance: nothing is left to draw from after leave_out and only")
        return left

    def _is_drawn(self, name: str) -> bool:
        names = {name, self.tasks.get(name, name)}
        return not names & set(self.leave_out) and (self.only is None or bool(names & set(self.only)))


class DatasetBalance(Selection):
    """Base of the strategies that draw each sample's dataset by a weight.

    Args:
        tasks: see ``Selection``.
        leave_out: see ``Selection``.
        only: see ``Selection``.
        replacement: any sample at each draw, as the official code; False walks through a dataset without repetition
            before it starts anew, which covers more and has the same expected counts.
    """

    def __init__(
        self,
        *,
        tasks: Mapping[str, str] | None,
        leave_out: Sequence[str],
        only: Sequence[str] | None,
        replacement: bool,
    ) -> None:
        super().__init__(tasks=tasks, leave_out=leave_out, only=only)
        self.replacement = replacement

    def weights(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """Dataset -> weight, of those that are drawn from."""
        raise NotImplementedError  # abstract

    def shares(self, sizes: Mapping[str, int]) -> dict[str, float]:
        return normalised(self.weights(sizes))

    def order(self, sizes: Mapping[str, int], seed: int, shards: Shards) -> Order:
        return WeightedOrder(sizes, self.weights(sizes), seed, replacement=self.replacement, shards=shards)

    def _task(self, name: str) -> str:
        if name not in self.tasks:
            raise UserError(f"balance.tasks: dataset '{name}' has no task; name it in the data config, under tasks")
        return self.tasks[name]


class Subset(Selection):
    """As ``BySize``, of a part of the mixture: some of its datasets, and of each a random fraction of its samples.

    The samples are drawn by the seed of the data; with the same seed, those of a smaller fraction are among those of a
    larger one. A sample that cannot be used is replaced by any of its dataset.

    Args:
        fraction: of the samples of each dataset, above 0 and at most 1; at least one sample stays.
        tasks: see ``Selection``.
        leave_out: see ``Selection``.
        only: see ``Selection``.
    """

    def __init__(
        self,
        *,
        fraction: float,
        tasks: Mapping[str, str] | None,
        leave_out: Sequence[str],
        only: Sequence[str] | None,
    ) -> None:
        super().__init__(tasks=tasks, leave_out=leave_out, only=only)
        if not 0 < fraction <= 1:
            raise UserError(f"balance.fraction: {fraction} must be above 0 and at most 1")
        self.fraction = fraction

    def shares(self, sizes: Mapping[str, int]) -> dict[str, float]:
        return normalised(sizes)

    def order(self, sizes: Mapping[str, int], seed: int, shards: Shards) -> Order:
        """Raises ``UserError`` for a fraction of a dataset in shards: each would be read for a few of its samples."""
        if self.fraction == 1:
            return EpochOrder(sizes, seed, shards)
        if shards:
            raise UserError(
                f"balance.fraction: dataset '{next(iter(shards))}' is in shards and can only be read as a whole; "
                "to use less, put fewer shards into its folder"
            )
        return SubsetOrder(sizes, self.fraction, seed)


class PerDataset(DatasetBalance):
    """Every dataset equally often (table 5a)."""

    def weights(self, sizes: Mapping[str, int]) -> dict[str, float]:
        return dict.fromkeys(sizes, 1.0)


class PerTask(DatasetBalance):
    """Every task equally often, its datasets equally often within it (table 5a; the split within is not published)."""

    def weights(self, sizes: Mapping[str, int]) -> dict[str, float]:
        tasks = [self._task(name) for name in sizes]
        return {name: 1 / tasks.count(self._task(name)) for name in sizes}


class PerSample(DatasetBalance):
    """In proportion to the size, of which at most ``limit`` samples count (table 5a: per-sample-100k)."""

    def __init__(
        self,
        *,
        limit: int,
        tasks: Mapping[str, str] | None,
        leave_out: Sequence[str],
        only: Sequence[str] | None,
        replacement: bool,
    ) -> None:
        super().__init__(tasks=tasks, leave_out=leave_out, only=only, replacement=replacement)
        if limit < 1:
            raise UserError(f"balance.limit: {limit} must be at least 1 sample")
        self.limit = limit

    def weights(self, sizes: Mapping[str, int]) -> dict[str, float]:
        return {name: float(min(size, self.limit)) for name, size in sizes.items()}


class Temperature(DatasetBalance):
    """In proportion to size to the power 1/temperature: 1 is by size, infinity is per dataset (mT5 and others)."""

    def __init__(
        self,
        *,
        temperature: float,
        tasks: Mapping[str, str] | None,
        leave_out: Sequence[str],
        only: Sequence[str] | None,
        replacement: bool,
    ) -> None:
        super().__init__(tasks=tasks, leave_out=leave_out, only=only, replacement=replacement)
        if not temperature > 0:
            raise UserError(f"balance.temperature: {temperature} must be above 0")
        self.temperature = temperature

    def weights(self, sizes: Mapping[str, int]) -> dict[str, float]:
        most = max(sizes.values())
        return {name: (size / most) ** (1 / self.temperature) for name, size in sizes.items()}


class Tuned(DatasetBalance):
    """Weights by dataset name (table 5a: per-dataset-tuned; table 12). A dataset of weight 0 is not opened."""

    def __init__(
        self,
        *,
        dataset_weights: Mapping[str, float],
        tasks: Mapping[str, str] | None,
        leave_out: Sequence[str],
        only: Sequence[str] | None,
        replacement: bool,
    ) -> None:
        super().__init__(tasks=tasks, leave_out=leave_out, only=only, replacement=replacement)
        negative = [name for name, weight in dataset_weights.items() if not 0 <= weight < float("inf")]
        if negative:
            raise UserError(f"balance.dataset_weights.{negative[0]}: {dataset_weights[negative[0]]} must be at least 0")
        self.dataset_weights = dataset_weights

    def needed(self, names: Sequence[str]) -> list[str]:
        """Raises ``UserError`` for weights of unknown datasets, datasets without weight, or no weight above 0."""
        for name in self.dataset_weights:
            if name not in names:
                raise UserError(f"balance.dataset_weights.{name}: no such dataset; {nearest(name, names)}")
        missing = [name for name in names if name not in self.dataset_weights]
        if missing:
            raise UserError(f"balance.dataset_weights: dataset '{missing[0]}' has no weight (0 leaves it out)")
        left = [name for name in super().needed(names) if self.dataset_weights[name] > 0]
        if not left:
            raise UserError("balance.dataset_weights: none of the weights that are left is above 0")
        return left

    def weights(self, sizes: Mapping[str, int]) -> dict[str, float]:
        return {name: float(self.dataset_weights[name]) for name in sizes}


def normalised(weights: Mapping[str, float]) -> dict[str, float]:
    """Weights divided by their sum."""
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}
