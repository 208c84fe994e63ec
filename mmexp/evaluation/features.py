"""Stored features of the benchmarks' images, so that rows of a sweep do not run the same frozen encoder again."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmexp.data.images import ImageReader
from mmexp.evaluation.benchmark import Question
from mmexp.files import WEIGHTS_FILE


def stored_features(model: Any, init_from: Any, runtime: Mapping[str, Any], questions: Iterable[Question]) -> Any:
    """A filled ``FeatureStore``, or None where ``runtime.feature_cache`` is off or the model has no vision side.

    Reads of ``runtime``: ``feature_cache``, ``cache_dir``, ``feature_cache_bytes``, ``feature_taps``. Encoders that a
    stage of this run trained are left out: other rows do not share their features.

    Args:
        model: with its weights; what no stage trained is frozen here.
        init_from: stage or stages that it was loaded from.
    """
    if not runtime.get("feature_cache") or not model.has_vision:
        return None
    from safetensors import safe_open

    from mmexp.model.build import lineage
    from mmexp.model.feature_cache import FeatureStore

    trained: set[str] = set()
    for folder in lineage(init_from):
        with safe_open(folder / WEIGHTS_FILE, "pt") as weights:
            trained |= set(weights.keys())
    for name, parameter in model.named_trainables():
        parameter.requires_grad_(name in trained)
    store = FeatureStore(
        model, Path(runtime["cache_dir"]), int(runtime["feature_cache_bytes"]), runtime.get("feature_taps")
    )
    reader = ImageReader(resolutions=model.vision.resolutions, features=None)
    images = {question.image: question.origin for question in questions if question.image is not None}

    def views(name: str) -> Iterator[Any]:
        for path, origin in images.items():
            yield from reader.read(path, origin).views[name]

    store.fill(views)
    return store
