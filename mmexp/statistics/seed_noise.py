"""How far the means of two rows may differ by the noise of training seeds alone."""

import math
from collections.abc import Sequence


def noise_of_seeds(values: Sequence[Sequence[float]], tried: int, confidence: float) -> float:
    """What a difference of two rows' means must exceed to be more than the seeds' noise.

    ``t(1 - (1 - confidence) / tried, f) * sqrt(2 s^2 / n)`` with n seeds; s^2 is the residual variance of the two-way
    layout rows x seeds, f = (rows - 1)(n - 1) its degrees of freedom. The best of ``tried`` rows is looked at, so the
    level is divided among them (Bonferroni).

    Args:
        values: (rows, seeds); every row has every seed.
        tried: rows that the best one was picked from.
        confidence: one-sided level.

    Returns:
        In the metric's scale; infinite where there are no degrees of freedom.
    """
    import numpy as np
    from scipy import stats

    table = np.array(values, dtype=float)
    rows, seeds = table.shape if table.ndim == 2 else (1, 1)
    freedom = (rows - 1) * (seeds - 1)
    if freedom < 1:
        return math.inf
    rest = table - table.mean(1, keepdims=True) - table.mean(0, keepdims=True) + table.mean()
    variance = float((rest**2).sum() / freedom)
    factor = float(stats.t.ppf(1 - (1 - confidence) / max(tried, 1), freedom))
    return factor * math.sqrt(2 * variance / seeds)
