"""Which kind of sweep a config asks for, and running it."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmexp.config import Composer
from mmexp.errors import UserError, nearest
from mmexp.sweeping.session import Order, open_session, sweep_node
from mmexp.sweeping.spec.rows import CommandLine
from mmexp.sweeping.spec.trials import Trial

KINDS = {
    "table": "mmexp.sweeping.search.table",
    "round_robin": "mmexp.sweeping.search.round_robin",
    "optuna": "mmexp.sweeping.search.optuna_search",
}
"""Kind, an option of ``hydra/sweeper`` -> module with ``search(session)``, and where trials are known before it runs
also ``load(scale, line)``."""
DEFAULT = "table"


def run_sweep(order: Order, kind: str = DEFAULT) -> Path | None:
    """Run a sweep, or go on with it.

    Args:
        kind: of the Hydra sweeper; ``sweep.search.kind`` of the sweep's file is used where this is the default.

    Returns:
        The sweep's folder; None for a dry run.

    Raises:
        UserError: mistakes, all of them in one list; nothing has been started.
        MissingResultsError: at the end, trials without a result.
    """
    with open_session(order) as session:
        name = kind_of(session.node, kind)
        folder: Path | None = importlib.import_module(KINDS[name]).search(session)
    return folder


def load(scale: str, line: CommandLine) -> tuple[dict[str, Any], list[Trial]]:
    """The node ``sweep`` and the trials that are known before anything is run, for a look at them.

    Raises:
        UserError: mistakes in the sweep.
    """
    with Composer(scale).open() as composer:
        node = sweep_node(composer.compose(line.plain))
    kind = kind_of(node)
    read = getattr(importlib.import_module(KINDS[kind]), "load", None)
    if read is None:
        raise UserError(f"sweep.search.kind: which trials {kind} runs is not known before")
    found: tuple[dict[str, Any], list[Trial]] = read(scale, line)
    return found


def kind_of(node: Mapping[str, Any], kind: str = DEFAULT) -> str:
    """Raises ``UserError`` for an unknown kind, or two that disagree."""
    asked = (node.get("search") or {}).get("kind", kind)
    if asked not in KINDS:
        raise UserError(f"sweep.search.kind: no kind '{asked}'; {nearest(str(asked), KINDS)}")
    if kind not in (DEFAULT, asked):
        raise UserError(f"hydra/sweeper={kind}: sweep.search.kind is {asked}; leave hydra/sweeper out")
    return str(asked)
