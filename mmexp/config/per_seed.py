"""One resolved config for all seeds of a row: the seed stands for itself, and is put in where it stands."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from mmexp.config.folders import search_folders

COMPUTED = re.compile(r"\$\{[\w.]+:[^\n]*\$\{seed\}")
"""A resolver with the seed among its arguments: what comes out need not contain it."""
SEED_MARK = 1_913_486_271
"""Stands for the seed in a config that is resolved once for several seeds."""


class PerSeed:
    """Resolved configs of one row.

    Args:
        resolve: seed -> resolved config.
        overrides: that it was composed with.
        scale: whose files it was composed from.
    """

    def __init__(self, resolve: Callable[[int], dict[str, Any]], overrides: tuple[str, ...], scale: str) -> None:
        computes = _computes_with_seed(scale, Path.cwd()) or any(map(COMPUTED.search, overrides))
        self._resolve = resolve if computes else None
        self._marked = {} if computes else resolve(SEED_MARK)

    def config(self, seed: int) -> dict[str, Any]:
        """Values that do not depend on the seed are shared between seeds, so do not change them."""
        if self._resolve is not None:
            return self._resolve(seed)
        found: dict[str, Any] = _replaced(self._marked, seed)
        return found


@cache
def _computes_with_seed(scale: str, folder: Path) -> bool:
    """Whether a resolver gets the seed in any config file that can be found from a folder."""
    return any(
        COMPUTED.search(path.read_text(encoding="utf-8", errors="replace"))
        for root in search_folders(scale)
        for path in root.rglob("*.yaml")
    )


def _replaced(value: Any, seed: int) -> Any:
    """The value with the seed in the place of its mark; itself where the mark is not in it."""
    if isinstance(value, dict):
        new = {key: _replaced(item, seed) for key, item in value.items()}
        return value if all(new[key] is item for key, item in value.items()) else new
    if isinstance(value, list):
        items = [_replaced(item, seed) for item in value]
        return value if all(new is item for new, item in zip(items, value, strict=True)) else items
    if isinstance(value, str):
        return value.replace(str(SEED_MARK), str(seed)) if str(SEED_MARK) in value else value
    return seed if value == SEED_MARK and not isinstance(value, bool) else value
