"""Comparisons that know two kinds of noise: which questions were asked, and which seed trained.

A comparison is a linear expression of ``row.metric`` terms, for example ``a.overall - b.overall``. Its uncertainty has
two parts that are drawn together:

- *questions*: the paired bootstrap. Questions (MME: pairs) are drawn with replacement within their benchmark and
  family, the same draw for every row and seed, and the metric itself is computed on the draw, whatever it is.
- *training*: seeds are blocks. With two or three seeds, drawing seeds with replacement is overconfident
  (it understates the variance by (S-1)/S and ignores its own error), so the mean over S seeds gets a
  t-distributed error instead. Its variance is the residual of metric = row + seed over all rows of the sweep, or the
  expression's own over seeds where that is larger; degrees of freedom (rows-1)(S-1).

Single answers flip from seed to seed; both parts see that, so it is taken out of the questions part (the two-way model
question + seed + flip). Taking the larger of two variances makes intervals wide rather than narrow. With one seed there
is no training part, and nothing is called significant.
"""

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mmexp.evaluation.metrics import Answers, Metric, metric_name, recorded_metric
from mmexp.evaluation.result import aggregate

Term = tuple[str, str]
"""(line of the table, metric)."""

REPLICATES = 2000
CONFIDENCE = 0.95
CELLS = 16_000_000
"""Largest weight matrix (replicates x questions) in memory at once."""
MAX_MORE_SEEDS = 100
ROUNDING = 1e-9
DIGITS = 9


class Trial(Protocol):
    """What is needed of a finished trial (``mmexp.report.results.Trial``)."""

    @property
    def seed(self) -> int | None: ...

    @property
    def result(self) -> dict[str, Any] | None: ...

    @property
    def metrics(self) -> dict[str, float]: ...

    def answers(self) -> dict[str, Answers]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What is known of an expression's value; numbers in the metric's scale."""

    value: float
    low: float
    high: float
    """Confidence interval of 95 %."""
    p: float
    """Two-sided, under the hypothesis that the value is 0."""
    seeds: int
    """Seeds that all lines of the expression have."""
    seed_std: float | None
    """Standard deviation over seeds of the expression; None with one seed."""
    question_std: float | None
    """Standard error from the questions; None when the lines were not asked the same."""
    more_seeds: int | None
    """Seeds to add until the interval would exclude 0, if the value stays; None when seeds alone are not enough."""

    @property
    def sure(self) -> bool:
        """Several seeds, and the interval excludes 0."""
        return self.seeds > 1 and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, slots=True)
class Noise:
    """Variance of one trial's metric that seeds explain, and its degrees of freedom."""

    variance: float
    df: int


class Measurements:
    """All numbers of a sweep that comparisons need; bootstrap draws are made once and shared."""

    def __init__(
        self, lines: Mapping[str, Sequence[Trial]], blind: Iterable[str], replicates: int = REPLICATES
    ) -> None:
        self.trials = {
            label: {trial.seed: trial for trial in trials if trial.result is not None}
            for label, trials in lines.items()
        }
        self.blind = set(blind)
        self.replicates = replicates
        self._draws: dict[tuple[str, int | None], dict[str, np.ndarray]] | None = None

    def value(self, term: Term, seed: int | None) -> float | None:
        label, metric = term
        trial = self.trials.get(label, {}).get(seed)
        return None if trial is None else trial.metrics.get(metric)

    def common_seeds(self, terms: Iterable[Term]) -> list[int | None]:
        """Seeds with a value for every term, in order."""
        terms = list(terms)
        seeds = {seed: None for label, _ in terms for seed in self.trials.get(label, {})}
        return [seed for seed in seeds if all(self.value(term, seed) is not None for term in terms)]

    def compare(self, terms: Mapping[Term, float], constant: float = 0.0) -> Comparison | None:
        """``sum of factor x term + constant`` against 0; None when no seed has all terms."""
        seeds = self.common_seeds(terms)
        if not seeds:
            return None
        per_seed = np.array([sum(f * (self.value(t, seed) or 0.0) for t, f in terms.items()) for seed in seeds])
        value = float(per_seed.mean() + constant)
        draws = self._question_draws(terms, seeds)
        noise = self._seed_noise(terms, per_seed)
        errors = questions = np.zeros(self.replicates) if draws is None else question_errors(draws, per_seed)
        if noise is not None:
            rng = np.random.default_rng(zlib.crc32(repr(sorted(terms.items())).encode()))
            errors = questions + rng.standard_t(noise.df, self.replicates) * math.sqrt(noise.variance / len(seeds))
        values = np.round(value + errors, DIGITS)
        low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        question_std = None if draws is None else float(questions.std())
        return Comparison(
            value=value,
            low=float(low),
            high=float(high),
            p=_p_value(values),
            seeds=len(seeds),
            seed_std=float(per_seed.std(ddof=1)) if len(seeds) > 1 else None,
            question_std=question_std,
            more_seeds=more_seeds(value, question_std or 0.0, noise, len(seeds)),
        )

    def _seed_noise(self, terms: Mapping[Term, float], per_seed: np.ndarray) -> Noise | None:
        """Variance over seeds of the expression; the larger of the sweep's and its own."""
        if len(per_seed) < 2:
            return None
        own = Noise(float(per_seed.var(ddof=1)), len(per_seed) - 1)
        pooled = []
        for metric in dict.fromkeys(metric for _, metric in terms):
            factors = [factor for (_, name), factor in terms.items() if name == metric]
            # A difference between rows is free of what a seed does to all rows; a single row's value is not.
            noise = self._pooled_noise(metric, paired=abs(sum(factors)) < ROUNDING)
            if noise is None:
                return own
            pooled.append(Noise(noise.variance * sum(factor**2 for factor in factors), noise.df))
        variance = max(own.variance, sum(noise.variance for noise in pooled))
        return Noise(variance, min(noise.df for noise in pooled))

    def _pooled_noise(self, metric: str, paired: bool) -> Noise | None:
        values = {
            (label, seed): trial.metrics[metric]
            for label, trials in self.trials.items()
            if label not in self.blind
            for seed, trial in trials.items()
            if metric in trial.metrics
        }
        return pooled_noise(values, paired)

    def _question_draws(self, terms: Mapping[Term, float], seeds: Sequence[int | None]) -> np.ndarray | None:
        """(seeds, replicates) values under resampled questions; None where they are not comparable."""
        if self._draws is None:
            self._draws = bootstrap(
                {(label, seed): trial for label, trials in self.trials.items() for seed, trial in trials.items()},
                self.replicates,
            )
        total = np.zeros((len(seeds), self.replicates))
        for place, seed in enumerate(seeds):
            for (label, metric), factor in terms.items():
                draw = self._draws.get((label, seed), {}).get(metric)
                if draw is None:
                    return None
                total[place] += factor * draw
        return total


def question_errors(draws: np.ndarray, per_seed: np.ndarray) -> np.ndarray:
    """(replicates,) errors of the mean over seeds that the questions make, without the flips from seed to seed.

    With S seeds and Q questions the mean's variance over ``draws`` is q/Q + flip/(SQ), a single seed's q/Q + flip/Q.
    """
    errors = draws.mean(axis=0) - per_seed.mean()
    variance, seeds = float(errors.var()), len(per_seed)
    if seeds == 1 or variance == 0:
        return errors
    flips = (float(draws.var(axis=1).mean()) - variance) / (seeds - 1)
    return errors * math.sqrt(min(1.0, max(0.0, 1 - flips / variance)))


def pooled_noise(values: Mapping[tuple[str, int | None], float], paired: bool) -> Noise | None:
    """Residual variance of value = line (+ seed, if ``paired``) by least squares; None without degrees of freedom."""
    if not values:
        return None
    lines = sorted({label for label, _ in values})
    seeds = sorted({seed for _, seed in values}, key=str)
    columns = [[float(label == line) for label, _ in values] for line in lines]
    if paired:
        columns += [[float(seed == block) for _, seed in values] for block in seeds]
    design, target = np.array(columns).T, np.array(list(values.values()))
    solution, _, rank, _ = np.linalg.lstsq(design, target, rcond=None)
    df = len(values) - int(rank)
    return Noise(float(((target - design @ solution) ** 2).sum() / df), df) if df > 0 else None


def more_seeds(value: float, question_std: float, noise: Noise | None, seeds: int) -> int | None:
    """Seeds to add until the half-width of the interval is below ``|value|``; at least 1 after a single seed."""
    from scipy import stats

    if noise is None:
        return 1
    for more in range(0 if seeds > 1 else 1, MAX_MORE_SEEDS + 1):
        df = max(1, round(noise.df * (seeds + more - 1) / (seeds - 1)))
        training = stats.t.ppf((1 + CONFIDENCE) / 2, df) ** 2 * noise.variance / (seeds + more)
        questions = (stats.norm.ppf((1 + CONFIDENCE) / 2) * question_std) ** 2
        if training + questions < value**2:
            return more
    return None


def bootstrap(
    trials: Mapping[tuple[str, int | None], Trial], replicates: int
) -> dict[tuple[str, int | None], dict[str, np.ndarray]]:
    """Every metric and aggregate of every trial on the same resampled questions: trial -> metric -> (replicates,).

    A benchmark that some trial was asked differently (another limit, another file) is left out for that trial.
    """
    answers = {place: trial.answers() for place, trial in trials.items()}
    draws: dict[tuple[str, int | None], dict[str, np.ndarray]] = {place: {} for place in trials}
    for benchmark in dict.fromkeys(name for parts in answers.values() for name in parts):
        users = {place: parts[benchmark] for place, parts in answers.items() if benchmark in parts}
        reference = next(iter(users.values()))
        metrics = {place: _metric_of(trials[place], benchmark) for place in users}
        same = {
            place: part for place, part in users.items() if metrics[place] is not None and asked_alike(part, reference)
        }
        if not same:
            continue
        first = metrics[next(iter(same))]
        assert first is not None
        rng = np.random.default_rng(zlib.crc32(benchmark.encode()))
        pieces: dict[tuple[str, int | None], list[dict[str, np.ndarray]]] = {place: [] for place in same}
        for weights in question_weights(first, reference, replicates, rng):
            for place, part in same.items():
                metric = metrics[place]
                assert metric is not None
                values = metric.values(part, weights)
                pieces[place].append({metric_name(metric, benchmark, key): value for key, value in values.items()})
        for place, parts in pieces.items():
            draws[place] |= {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for place, values in draws.items():
        nodes = _scoring(trials[place]).get("aggregates", {})
        draws[place] = {name: value for name, value in (values | aggregate(values, nodes)).items()}
    return draws


def question_weights(
    metric: Metric, answers: Answers, replicates: int, rng: np.random.Generator
) -> Iterable[np.ndarray]:
    """Chunks of (replicates, N) counts: units drawn with replacement within each family."""
    keys = [
        metric.unit(*row, index)
        for index, row in enumerate(zip(answers.question_ids, answers.families, answers.images, strict=True))
    ]
    numbers: dict[object, int] = {}
    unit_of = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
    family_of = dict(zip(unit_of.tolist(), answers.families, strict=True))
    families: dict[str, list[int]] = {}
    for unit, family in sorted(family_of.items()):
        families.setdefault(family, []).append(unit)
    rows = max(1, min(replicates, CELLS // len(keys)))
    for start in range(0, replicates, rows):
        drawn = np.zeros((min(rows, replicates - start), len(numbers)))
        for units in families.values():
            size = len(units)
            picks = rng.integers(size, size=(len(drawn), size)) + size * np.arange(len(drawn))[:, None]
            drawn[:, units] = np.bincount(picks.ravel(), minlength=picks.size).reshape(picks.shape)
        yield drawn[:, unit_of]


def asked_alike(one: Answers, other: Answers) -> bool:
    """Whether two trials were asked the same questions in the same order."""
    return list(one.question_ids) == list(other.question_ids) and list(one.questions) == list(other.questions)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjusted p-values, in the given order."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = largest
    return adjusted


def _p_value(draws: np.ndarray) -> float:
    tail = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(draws) + 1))


def _scoring(trial: Trial) -> Mapping[str, Mapping[str, Mapping[str, str]]]:
    return (trial.result or {}).get("scoring") or {}


def _metric_of(trial: Trial, benchmark: str) -> Metric | None:
    """The scoring rule a trial was scored by; None when its result does not say, or says an unknown one."""
    node = _scoring(trial).get("benchmarks", {}).get(benchmark)
    return recorded_metric(node) if node else None
