"""Models without memory, built once for each distinct config node: seeds and stages of a sweep share theirs."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

KEPT = 16


def meta_model(spec: Mapping[str, Any]) -> Any:
    """The composed model of a node ``model`` on meta tensors. Raises ``UserError`` where its parts do not fit."""
    return _built(json.dumps(spec))


@lru_cache(maxsize=KEPT)
def _built(text: str) -> Any:
    from mmexp.model.build import build_meta_model

    return build_meta_model(json.loads(text))
