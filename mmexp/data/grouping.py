"""Batches of one modality whose micro-batches hold samples of like length (``group_by_modality_length``).

As in LLaVA-1.5 (papers/llava15.md, section 6) each global batch has only image samples or only text samples, is sorted
by length and dealt out evenly. Deliberate differences: lengths are tokens with the visual ones, not white-space words;
modalities are sorted out within stretches of the order rather than over an epoch, which needs no pass over all data
and leaves balancing and resumption as they are; one mixed batch ends each stretch, not each epoch.
"""

from collections.abc import Callable, Sequence

import numpy as np

from mmexp.data.order import generator

STRETCH_BATCHES = 64


class ModalityOrder:
    """The positions of each global batch.

    Args:
        has_image: positions -> which of their samples have an image.
        batch_size: global.
        seed: of the order of the batches in a stretch.
    """

    def __init__(self, *, has_image: Callable[[np.ndarray], np.ndarray], batch_size: int, seed: int) -> None:
        self.has_image, self.batch_size, self.seed = has_image, batch_size, seed
        self._kept: tuple[int, np.ndarray] | None = None

    def batch(self, step: int) -> np.ndarray:
        """(batch_size,) positions of the mixture."""
        stretch, place = divmod(step, STRETCH_BATCHES)
        if self._kept is None or self._kept[0] != stretch:
            self._kept = (stretch, self._stretch(stretch))
        return self._kept[1][place]

    def _stretch(self, stretch: int) -> np.ndarray:
        size = STRETCH_BATCHES * self.batch_size
        positions = stretch * size + np.arange(size)
        with_image = self.has_image(positions)
        kinds = [positions[with_image], positions[~with_image]]
        whole = [kind[: len(kind) // self.batch_size * self.batch_size] for kind in kinds]
        tails = np.concatenate([kind[len(part) :] for kind, part in zip(kinds, whole, strict=True)])
        batches = np.concatenate([*whole, tails]).reshape(STRETCH_BATCHES, self.batch_size)
        return batches[generator(self.seed, "modality batches", stretch).permutation(STRETCH_BATCHES)]


def deal(lengths: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """Deal numbers, longest first, each to the group with the least total length that is not full.

    Args:
        lengths: of the samples.
        sizes: how many each group gets; they sum to ``len(lengths)``.
    """
    hands: list[list[int]] = [[] for _ in sizes]
    totals = [0] * len(sizes)
    for number in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        open_hands = [hand for hand in range(len(sizes)) if len(hands[hand]) < sizes[hand]]
        hand = min(open_hands, key=lambda place: (totals[place], place))
        hands[hand].append(number)
        totals[hand] += lengths[number]
    return hands
