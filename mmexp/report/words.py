"""How the entries of a report are written, in every format the same."""

from mmexp.report.table import Line, Summary
from mmexp.statistics.measurements import Comparison
from mmexp.statistics.numbers import NOTHING, PLUS_MINUS, count, number, signed

LAB_NOTE = "scale lab: findings about the lab, not about the papers"


def spread(summary: Summary | None) -> str:
    """``63.1 +/- 1.2``; the mean alone with one seed."""
    if summary is None:
        return NOTHING
    return number(summary.mean) + (f" {PLUS_MINUS} {number(summary.std)}" if summary.std is not None else "")


def interval(comparison: Comparison | None) -> str:
    """``+2.1 [0.3, 4.0]``."""
    if comparison is None:
        return NOTHING
    return f"{signed(comparison.value)} [{signed(comparison.low)}, {signed(comparison.high)}]"


def difference(line: Line) -> str:
    """To the baseline, with an asterisk where it is significant."""
    if line.is_baseline:
        return "baseline"
    return interval(line.difference) + (" *" if line.significant else "")


def cost(name: str, value: float | None) -> str:
    """Tokens and times as they are, parameters with a unit."""
    if value is None:
        return NOTHING
    return count(value, decimals=1) if name.endswith("parameters") else f"{value:,.0f}"
