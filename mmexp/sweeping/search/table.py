"""A table: rows x axes x seeds, all known before the first is run."""

from collections.abc import Sequence
from typing import Any

from mmexp.errors import UserError
from mmexp.sweeping.search.strategy import Strategy
from mmexp.sweeping.spec.sweep import Sweep
from mmexp.sweeping.spec.table import BLIND, Request, expand, rows_of


class Table(Strategy):
    """Rows of a sweep's file, or, without a file, the points that the command line spans."""

    uses = ("baseline", "rows", "cumulative", "axes", "zip", "exclude", "only")

    def __init__(self, *, sweep: Sweep) -> None:
        super().__init__(sweep=sweep)
        node = sweep.node
        if not (sweep.is_multirun or node.rows or node.axes or node.zip):
            name = sweep.line.sweep or ""
            raise UserError(f"sweeps/{name}: a sweep needs sweep.rows (a mapping of names), sweep.axes or sweep.zip")
        self.requests = expand(node, sweep.line, blind=sweep.adds_blind)
        if node.rows:
            self.check_findings({*rows_of(node, blind=False), BLIND})

    def first(self) -> Sequence[Request]:
        return self.requests

    def node(self) -> dict[str, Any]:
        """With the rows that the command line spans where there is no file, and what they are ranked by."""
        node = super().node()
        if self.sweep.is_multirun:
            node["rows"] = {request.row: {"overrides": list(request.overrides)} for request in self.requests}
            node.setdefault("metric", next(iter(self.sweep.base.config.get("aggregates") or {}), None))
        return node
