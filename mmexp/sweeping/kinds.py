"""Which kind of sweep a config asks for, and running it."""

import importlib
from pathlib import Path

from mmexp.errors import UserError, nearest
from mmexp.sweeping.session import Order, Session, open_session

KINDS = {
    "table": "mmexp.sweeping.table",
    "round_robin": "mmexp.sweeping.round_robin",
    "optuna": "mmexp.sweeping.optuna_search",
}
"""Kind, an option of ``hydra/sweeper`` -> module with ``search(session)``."""
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
        name = kind_of(session, kind)
        folder: Path | None = importlib.import_module(KINDS[name]).search(session)
    return folder


def kind_of(session: Session, kind: str = DEFAULT) -> str:
    """Raises ``UserError`` for an unknown kind, or two that disagree."""
    asked = (session.node.get("search") or {}).get("kind", kind)
    if asked not in KINDS:
        raise UserError(f"sweep.search.kind: no kind '{asked}'; {nearest(str(asked), KINDS)}")
    if kind not in (DEFAULT, asked):
        raise UserError(f"hydra/sweeper={kind}: sweep.search.kind is {asked}; leave hydra/sweeper out")
    return str(asked)
