"""How numbers are written, in every format the same."""

from mmexp.report.table import Line, Summary
from mmexp.statistics.measurements import Comparison

PLUS_MINUS = "\u00b1"
NOTHING = "\u2013"

LAB_NOTE = "scale lab: findings about the lab, not about the papers"


def number(value: float | None) -> str:
    """One decimal; none from 1000 on."""
    if value is None:
        return NOTHING
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}"


def spread(summary: Summary | None) -> str:
    """``63.1 +/- 1.2``; the mean alone with one seed."""
    if summary is None:
        return NOTHING
    return number(summary.mean) + (f" {PLUS_MINUS} {number(summary.std)}" if summary.std is not None else "")


def signed(value: float) -> str:
    return ("+" if value >= 0 else "-") + number(abs(value))


def interval(comparison: Comparison | None) -> str:
    """``+2.1 [0.3, 4.0]``."""
    if comparison is None:
        return NOTHING
    return f"{signed(comparison.value)} [{signed(comparison.low)}, {signed(comparison.high)}]"


def difference(line: Line) -> str:
    """To the baseline, with a star where it is significant."""
    if line.is_baseline:
        return "baseline"
    return interval(line.difference) + (" *" if line.significant else "")


def p_value(value: float | None) -> str:
    if value is None:
        return NOTHING
    return "< 0.01" if value < 0.01 else f"{value:.2f}"


def cost(name: str, value: float | None) -> str:
    """Tokens and times as they are, parameters with a unit."""
    if value is None:
        return NOTHING
    if not name.endswith("parameters"):
        return f"{value:,.0f}"
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f}{unit}"
    return f"{value:.0f}"


def title(name: str) -> str:
    """A metric's or cost's name for people."""
    return name.replace("_", " ")
