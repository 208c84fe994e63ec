"""Random draws that are the same on every machine and with every numpy: raw PCG64 words and integer arithmetic."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Rng:
    """Draws from one stream that is named by integers, for example (seed, split, image).

    numpy guarantees the raw words of a bit generator for good, but not what ``Generator`` makes of them.
    """

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def below(self, n: int) -> int:
        """Uniform in 0..n-1 (the bias of the modulo is below 2**-50 for the small n used here)."""
        return int(self._bits.random_raw()) % n

    def between(self, low: int, high: int) -> int:
        """Uniform in low..high, both included."""
        return low + self.below(high - low + 1)

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def sample(self, n: int, k: int) -> list[int]:
        """``k`` different numbers below ``n``, in random order."""
        pool = list(range(n))
        for place in range(k):
            other = self.between(place, n - 1)
            pool[place], pool[other] = pool[other], pool[place]
        return pool[:k]

    def bytes(self, n: int) -> np.ndarray:
        """(n,) uint8, uniform."""
        words = self._bits.random_raw((n + 7) // 8)
        return words.astype("<u8").view(np.uint8)[:n]
