"""How numbers are written for people: in tables, reports and messages the same."""

PLUS_MINUS = "\u00b1"
NOTHING = "\u2013"
"""Where there is no number."""
COUNTS = ((1e9, "B"), (1e6, "M"), (1e3, "k"))
BYTES = ("B", "kB", "MB", "GB", "TB")


def number(value: float | None) -> str:
    """One decimal; none from 1000 on."""
    if value is None:
        return NOTHING
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}"


def signed(value: float) -> str:
    """``+2.1``."""
    return ("+" if value >= 0 else "-") + number(abs(value))


def p_value(value: float | None) -> str:
    """Two decimals; ``< 0.01`` below them."""
    if value is None:
        return NOTHING
    return "< 0.01" if value < 0.01 else f"{value:.2f}"


def count(value: float, decimals: int = 2) -> str:
    """1234567 -> ``1.23M``: parameters and samples."""
    for size, unit in COUNTS:
        if value >= size:
            return f"{value / size:.{decimals}f}{unit}"
    return f"{value:.0f}"


def size(value: float) -> str:
    """Bytes: 1234567 -> ``1.2 MB``."""
    for unit in BYTES[:-1]:
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} {BYTES[-1]}"


def title(name: str) -> str:
    """A metric's or cost's name for people."""
    return name.replace("_", " ")
