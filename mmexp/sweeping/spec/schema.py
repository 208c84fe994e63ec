"""The config node ``sweep``, typed: its keys, and what they may hold."""

from typing import Annotated, Any

from pydantic import Field

from mmexp.config.schema import Node


class Row(Node):
    """A row of a table."""

    overrides: list[str] = []
    """Key=value texts that make a config this row's."""
    published: dict[str, float] = {}
    """Metric -> the paper's number."""
    note: str = ""


class Finding(Node):
    """A claim that is drawn from the sweep, as a comparison that can be checked."""

    check: str
    """For example ``row_a.overall > row_b.overall``; read by ``mmexp.statistics.expression``."""
    id: str = ""
    claim: str = ""
    source: str = ""


class SweepNode(Node):
    """The whole node. Which keys a kind of sweep has no use for is that kind's to say (``Strategy.unused``)."""

    title: str = ""
    source: dict[str, Any] = {}
    note: str = ""
    metric: str | None = None
    """What rows are ranked by: a metric or a named aggregate."""
    baseline: str | None = None
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field([0], min_length=1)
    rows: dict[str, Row] = {}
    cumulative: bool = False
    """Each row has its own overrides and those of all rows before it."""
    axes: dict[str, list[Any]] = {}
    """Key -> values; each axis crosses all rows and all other axes."""
    zip: dict[str, list[Any]] = {}
    """Axes of one length that are varied together."""
    exclude: list[dict[str, Any]] = []
    """Points that are left out: those for which all that an entry names is so."""
    only: list[str] = []
    """Rows that are run now; the others stay in the table."""
    findings: list[Finding] = []
    search: dict[str, Any] | None = None
    """``_target_`` of a ``Strategy`` and its arguments; a table where there is none."""


class KnownSet(Node):
    """What is published of a set of a greedy search."""

    set: list[str]
    published: dict[str, float] = {}
    note: str = ""
