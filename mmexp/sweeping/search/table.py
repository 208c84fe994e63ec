"""Kind ``table``: rows x axes x seeds, all known before the first is run."""

from pathlib import Path
from typing import Any

from mmexp.config import Composer
from mmexp.sweeping.session import Session, sweep_node
from mmexp.sweeping.spec.rows import CommandLine, Request, check_node, expand
from mmexp.sweeping.spec.trials import Mistakes, Trial, freeze

BLIND_SCALE = "lab"
"""Scale at which every sweep gets the blind baseline by itself."""


def search(session: Session) -> Path | None:
    """Run a table. Returns the sweep's folder; None for a dry run."""
    requests = table_requests(session.node, session.line, session.order.scale)
    trials = session.submit(requests)
    if session.dry_run:
        session.preview(trials)
        return None
    node = table_node(session.node, session.line, trials)
    with session.control(node) as controller:
        controller.run(trials)
    return session.finish(controller)


def load(scale: str, line: CommandLine) -> tuple[dict[str, Any], list[Trial]]:
    """The config node ``sweep`` of a table and its frozen trials.

    Raises:
        UserError: all mistakes of all rows.
    """
    mistakes = Mistakes()
    with Composer(scale).open() as composer:
        found = sweep_node(composer.compose(line.plain))
        trials = freeze(composer, table_requests(found, line, scale), mistakes)
    mistakes.raise_if_any()
    return table_node(found, line, trials), trials


def table_requests(node: dict[str, Any], line: CommandLine, scale: str) -> list[Request]:
    """Cells of the table. Raises ``UserError``."""
    if line.sweep is not None or node:
        check_node(node, line.sweep or "")
    return expand(node, line, blind=scale == BLIND_SCALE)


def table_node(node: dict[str, Any], line: CommandLine, trials: list[Trial]) -> dict[str, Any]:
    """The node with what the command line adds: its seeds, and rows where there is no sweep file."""
    requests = [trial.request for trial in trials]
    node = {**node, "seeds": list(dict.fromkeys(request.seed for request in requests))}
    if line.sweep is None:
        node["rows"] = {request.row: {"overrides": list(request.overrides)} for request in requests}
        node.setdefault("metric", next(iter(trials[0].config.get("aggregates") or {}), None))
    return node
