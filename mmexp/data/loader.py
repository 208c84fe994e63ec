"""The training loader: for each optimizer step a window of micro-batches, from any step on.

What a window holds is a pure function of (config, seed, step); the number of workers changes nothing, the micro-batch
size only how a window is cut.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from mmexp.data.bad_samples import BadSample, BadSampleBudget
from mmexp.data.batching import make_batch, place_blocks
from mmexp.data.grouping import ModalityOrder, deal
from mmexp.data.prepare import SampleReader
from mmexp.errors import UserError
from mmexp.interfaces import Batch, ImageBatch

PREFETCHED_WINDOWS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """Which part of each global batch this process trains, and in what portions."""

    rank: int
    world_size: int
    micro_batch_size: int
    """Samples of a micro-batch; the last one of a window may be smaller."""


@dataclass(slots=True)
class Window:
    """The micro-batches of one optimizer step, the samples that were left out, and an error that ends training."""

    batches: list[Batch]
    bad: list[BadSample]
    error: UserError | None = None

    def pin_memory(self) -> "Window":
        """Called by torch's DataLoader in its pinning thread."""
        return replace(self, batches=[_pinned(batch) for batch in self.batches])


class WindowMaker:
    """Makes the window of any step; what torch's DataLoader takes for a map-style dataset.

    Args:
        reader: prepares samples.
        shard: this process' part.

    Raises:
        UserError: the global batch cannot be divided among the ranks.
    """

    def __init__(self, *, reader: SampleReader, shard: Shard) -> None:
        self.reader, self.batching = reader, reader.batching
        size = self.batching.batch_size
        if size % shard.world_size:
            raise UserError(f"batching.batch_size: {size} samples cannot be divided among {shard.world_size} processes")
        if shard.micro_batch_size < 1:
            raise UserError(f"runtime.micro_batch_size: {shard.micro_batch_size} must be at least 1")
        own = size // shard.world_size
        self._portions = [min(shard.micro_batch_size, own - start) for start in range(0, own, shard.micro_batch_size)]
        self._rank, self._world_size = shard.rank, shard.world_size
        self._modality_order = ModalityOrder(has_image=self._has_image, batch_size=size, seed=reader.mixture.seed)

    def positions(self, step: int) -> list[list[int]]:
        """Positions of the mixture in each micro-batch of this process."""
        batch = self._global_batch(step)
        portions = self._portions * self._world_size
        if self.batching.group_by_modality_length:
            places = zip(self.reader.mixture.places(batch), batch.tolist(), strict=True)
            lengths = [self.reader.length(place, position) for place, position in places]
            hands = [batch[hand] for hand in deal(lengths, portions)]
        else:
            hands = np.split(batch, np.cumsum(portions)[:-1])
        count = len(self._portions)
        return [hand.tolist() for hand in hands[self._rank * count : (self._rank + 1) * count]]

    def _global_batch(self, step: int) -> np.ndarray:
        """(batch_size,) positions, of all processes."""
        if self.batching.group_by_modality_length:
            return self._modality_order.batch(step)
        return step * self.batching.batch_size + np.arange(self.batching.batch_size)

    def __getitem__(self, step: int) -> Window:
        """Errors are returned rather than raised: a worker process would turn them into text with a traceback."""
        window = Window([], [])
        try:
            for positions in self.positions(step):
                window.batches.append(self._batch(positions, window.bad))
        except UserError as error:
            window.error = error
        return window

    def views(self, name: str, steps: int) -> Iterator[np.ndarray]:
        """(3, H, W) uint8 views for the encoder ``name`` of each image that this many steps need, bad ones left out."""
        mixture = self.reader.mixture
        seen = set()
        positions = np.concatenate([self._global_batch(step) for step in range(steps)])
        for place in dict.fromkeys(mixture.places(positions)):
            try:
                sample = mixture.sample(place)
                image = None if sample.image in seen else self.reader.image(sample.image, sample.origin)
            except BadSample:
                continue
            seen.add(sample.image)
            if image is not None:
                yield from image.views[name]

    def _batch(self, positions: Sequence[int], bad: list[BadSample]) -> Batch:
        blocks, images = [], []
        for position, place in zip(positions, self.reader.mixture.places(positions), strict=True):
            prepared, left_out = self.reader.prepare_position(position, place)
            bad += left_out
            blocks += prepared.blocks
            images += [prepared.image] * len(prepared.blocks)
        if self.batching.shares_rows:
            rows = place_blocks([block.length for block in blocks], self.batching.capacity)
        else:
            rows = [[number] for number in range(len(blocks))]
        return make_batch(blocks, images, rows)

    def _has_image(self, positions: np.ndarray) -> np.ndarray:
        return np.array([self.reader.has_image(place) for place in self.reader.mixture.places(positions)])


class TrainLoader:
    """Iterates over windows; an iteration begins at ``start_step``.

    Args:
        windows: makes them.
        steps: of the whole stage.
        start_step: first one of this iteration, what a resumed run has done.
        num_workers: processes that prepare windows ahead; 0 prepares each when it is asked for.
        pin_memory: put tensors in page-locked memory.
        budget: of bad samples.

    Raises:
        UserError: while iterating, a bad sample beyond the budget.
    """

    def __init__(
        self,
        *,
        windows: WindowMaker,
        steps: int,
        start_step: int,
        num_workers: int,
        pin_memory: bool,
        budget: BadSampleBudget,
    ) -> None:
        self.windows, self.steps, self.start_step = windows, steps, start_step
        self.num_workers, self.pin_memory, self.budget = num_workers, pin_memory, budget

    def __len__(self) -> int:
        return self.steps - self.start_step

    def __iter__(self) -> Iterator[list[Batch]]:
        for window in self._windows():
            self.budget.spend(window.bad)
            if window.error is not None:
                raise window.error
            yield window.batches

    def _windows(self) -> Iterator[Window]:
        steps = range(self.start_step, self.steps)
        if self.num_workers == 0:
            made = (self.windows[step] for step in steps)
            return (window.pin_memory() for window in made) if self.pin_memory else made
        return iter(self._parallel(steps))

    def _parallel(self, steps: range) -> Any:
        from torch.utils.data import DataLoader

        # torch's types do not cover a dataset of batches
        dataset: Any = self.windows
        collate: Any = _as_it_is
        return DataLoader(
            dataset,
            sampler=steps,
            batch_size=None,
            collate_fn=collate,
            num_workers=self.num_workers,
            prefetch_factor=max(2, PREFETCHED_WINDOWS // self.num_workers),
            pin_memory=self.pin_memory,
        )


def _as_it_is(window: Window) -> Window:
    return window


def _pinned(batch: Batch) -> Batch:
    import torch

    tensors: dict[str, Any] = {
        field.name: value.pin_memory()
        for field in fields(batch)
        if isinstance(value := getattr(batch, field.name), torch.Tensor)
    }
    return replace(batch, **tensors, images=batch.images and _pinned_images(batch.images))


def _pinned_images(images: ImageBatch) -> ImageBatch:
    views = {name: view.pin_memory() for name, view in images.views.items()}
    features = {
        name: {tap: value.pin_memory() for tap, value in taps.items()} for name, taps in images.features.items()
    }
    return replace(images, views=views, features=features)
