"""The feature caches of all frozen encoders of a model, as the data side looks them up."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmexp.model.feature_cache import EncoderFeatures
from mmexp.model.mllm import Mllm

BATCH = 64


class FeatureStore:
    """Encoder name -> cache, for the encoders whose features depend on nothing but the view.

    Args:
        model: weights loaded, ``requires_grad`` set.
        folder: of all caches.
        limit_bytes: of all caches together.
        taps: name -> depths, and groups of them as lists, to store when a sweep needs more than this model; all are
            filled in one pass.
    """

    def __init__(
        self,
        model: Mllm,
        folder: Path,
        limit_bytes: int,
        taps: Mapping[str, Sequence[int | Sequence[int]]] | None = None,
    ) -> None:
        self.caches = {}
        for name in cacheable(model):
            further = [tap if isinstance(tap, int) else tuple(tap) for tap in (taps or {}).get(name, ())]
            own = model.sight.taps(name)
            self.caches[name] = EncoderFeatures(model.sight.encoders[name], own, folder, limit_bytes, further)

    def lookup(self, name: str, view: np.ndarray) -> dict[Any, np.ndarray] | None:
        """(3, H, W) uint8 -> tap -> (N, D), or None where they are not stored."""
        return self.caches[name].lookup(view) if name in self.caches else None

    def fill(self, views: Callable[[str], Iterable[np.ndarray]]) -> int:
        """Run each encoder over the views that are not stored; returns how many those were."""
        filled = 0
        for name, cache in self.caches.items():
            filled += cache.fill(views(name), BATCH)
        return filled


def cacheable(model: Mllm) -> list[str]:
    """Encoders that are frozen and into which nothing is injected."""
    if model.vision is None:
        return []
    frozen = [
        name
        for name, encoder in model.vision.encoders.items()
        if not any(parameter.requires_grad for parameter in encoder.parameters())
    ]
    injected = set() if type(model.vision.fusion).inject is _no_injection() else set(frozen)
    return [name for name in frozen if name not in injected]


def _no_injection() -> Any:
    from mmexp.model.fusion.base import BaseFusion

    return BaseFusion.inject
