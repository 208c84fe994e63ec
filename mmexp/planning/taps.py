"""Which depths of an encoder the runs of a sweep need together, so that a feature cache is filled in one pass."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmexp.planning.meta import meta_model


def share_taps(configs: Sequence[Mapping[str, Any]], runtimes: Sequence[Sequence[dict[str, Any]]]) -> None:
    """Give every stage of every trial (its ``runtime``, in place) the taps that all trials need of its encoders.

    Two encoders are the same when their config nodes are, apart from the layer selection.

    Args:
        configs: resolved config of each trial.
        runtimes: the ``runtime`` of each trial's stages.
    """
    needed: dict[str, list[Any]] = {}
    specs = [json.dumps(config["evaluation"]["model"], sort_keys=True) for config in configs]
    found = {spec: encoder_taps(json.loads(spec)) for spec in dict.fromkeys(specs)}
    own = [found[spec] for spec in specs]
    for encoders in own:
        for key, taps in encoders.values():
            needed[key] = list(dict.fromkeys([*needed.get(key, []), *taps]))
    for encoders, stages in zip(own, runtimes, strict=True):
        together = {name: needed[key] for name, (key, _) in encoders.items()}
        for runtime in stages:
            runtime["feature_taps"] = together


def encoder_taps(spec: Mapping[str, Any]) -> dict[str, tuple[str, list[Any]]]:
    """Name -> (identity of the encoder, depths and groups of depths that this model needs of it)."""

    if "encoders" not in spec:
        return {}
    vision = meta_model(spec).vision
    found = {}
    for name, node in spec["encoders"].items():
        parts = {key: value for key, value in node.items() if key not in ("feature_layers", "resolution")}
        found[name] = (json.dumps(parts, sort_keys=True), list(vision.taps(name)))
    return found
