"""The paper's table from a sweep's results: everything that the writers show, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mmexp.evaluation.metrics import recorded_metric
from mmexp.files import NOT_SELECTED
from mmexp.report.findings import Finding, answer
from mmexp.report.results import SweepResults, Trial
from mmexp.statistics.measurements import Comparison, Measurements, holm

BLIND = "blind"
SIGNIFICANCE = 0.05
COSTS = ("visual_tokens", "projector_parameters", "parameters", "step_ms", "seconds")
MAX_CURVE_POINTS = 400


@dataclass(frozen=True, slots=True)
class Summary:
    """A metric over the seeds of a line."""

    mean: float
    std: float | None
    """Sample standard deviation; None with one seed."""
    n: int
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of the table."""

    label: str
    row: str
    is_baseline: bool
    is_blind: bool
    overrides: tuple[str, ...]
    metrics: Mapping[str, Summary]
    published: Mapping[str, float]
    """Empty at scale lab."""
    costs: Mapping[str, float]
    difference: Comparison | None = None
    """To the baseline, in the ranking metric."""
    p_holm: float | None = None

    @property
    def significant(self) -> bool:
        return self.p_holm is not None and self.p_holm < SIGNIFICANCE


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A trial without numbers."""

    label: str
    seed: int | None
    status: str
    reason: str
    log_tail: str
    folder: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Training loss of one trial's stage."""

    label: str
    seed: int | None
    stage: str
    steps: tuple[float, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """All that a report shows."""

    name: str
    scale: str
    source: str
    metric: str
    baseline: str | None
    columns: tuple[str, ...]
    """Metrics shown, the ranking metric first; all of them are in each line."""
    families: tuple[str, ...]
    """Columns of the heat map."""
    lines: tuple[Line, ...]
    findings: tuple[Finding, ...]
    failures: tuple[Failure, ...]
    curves: tuple[Curve, ...]
    best: str | None
    """Line with the highest mean, blind apart."""
    best_over_blind: Comparison | None
    kendall_tau: Mapping[str, float]
    """Metric -> rank agreement with its published numbers; empty at scale lab."""
    notes: tuple[str, ...] = field(default=())
    search: Mapping[str, Any] = field(default_factory=dict)
    """Trace of a search, as recorded in the ledger; empty for a table."""

    @property
    def is_lab(self) -> bool:
        return self.scale != "paper"


def tabulate(results: SweepResults) -> Report:
    """Summarise, compare with the baseline, answer the findings."""
    node, lines = results.node, results.lines()
    metric = str(node.get("metric") or "overall")
    blind = [label for label, trials in lines.items() if is_blind(trials)]
    measurements = Measurements(lines, blind)
    baseline = _baseline(node, lines, blind)
    table = [_line(label, trials, results, baseline, blind) for label, trials in lines.items()]
    compared = _compared(table, measurements, metric, baseline)
    columns, families = _columns([trial for trials in lines.values() for trial in trials], table, metric)
    ranked = [line for line in compared if metric in line.metrics and not line.is_blind]
    best = max(ranked, key=lambda line: line.metrics[metric].mean).label if ranked else None
    against_blind = {(best, metric): 1.0, (blind[0], metric): -1.0} if best and blind else {}
    labels = _labels_of_rows(node, lines)
    return Report(
        name=results.name,
        scale=results.scale,
        source=_source(node.get("source")),
        metric=metric,
        baseline=baseline,
        columns=columns,
        families=families,
        lines=tuple(compared),
        findings=tuple(
            answer(entry, measurements, labels, searched=bool(results.search)) for entry in node.get("findings") or []
        ),
        failures=tuple(_failures(lines)),
        curves=tuple(_curves(lines)),
        best=best,
        best_over_blind=measurements.compare(against_blind) if against_blind else None,
        kendall_tau=_kendall(compared) if results.scale == "paper" else {},
        notes=(*_notes(node, compared, metric, baseline, blind), *_left_out(lines)),
        search=results.search,
    )


def is_blind(trials: Sequence[Trial]) -> bool:
    """Whether a line is the blind baseline: the row of that name, or one that chose the recipe."""
    return all(trial.row == BLIND or "recipe=blind" in trial.overrides for trial in trials)


def _baseline(node: Mapping[str, Any], lines: Mapping[str, Sequence[Trial]], blind: Sequence[str]) -> str | None:
    """Label of the baseline: the first line of the row that the sweep names, else the first line."""
    wanted = node.get("baseline")
    for label, trials in lines.items():
        if trials[0].row == wanted or (wanted is None and label not in blind):
            return label
    return None


def _line(
    label: str, trials: Sequence[Trial], results: SweepResults, baseline: str | None, blind: Sequence[str]
) -> Line:
    row = (results.node.get("rows") or {}).get(trials[0].row) or {}
    published = dict(row.get("published") or {}) if results.scale == "paper" and not trials[0].axes else {}
    return Line(
        label=label,
        row=trials[0].row,
        is_baseline=label == baseline,
        is_blind=label in blind,
        overrides=tuple(text for text in trials[0].overrides if not text.startswith("seed=")),
        metrics=_summaries([trial.metrics for trial in trials if trial.result is not None]),
        published={name: float(value) for name, value in published.items()},
        costs=_costs(trials),
    )


def _summaries(measured: Sequence[Mapping[str, float]]) -> dict[str, Summary]:
    out = {}
    for name in dict.fromkeys(name for metrics in measured for name in metrics):
        values = [metrics[name] for metrics in measured if name in metrics]
        std = float(np.std(values, ddof=1)) if len(values) > 1 else None
        out[name] = Summary(float(np.mean(values)), std, len(values), tuple(values))
    return out


def _costs(trials: Sequence[Trial]) -> dict[str, float]:
    """Mean of each cost over the seeds that have it."""
    found = [(trial.result or {}).get("costs", {}) for trial in trials]
    values = {name: [float(costs[name]) for costs in found if costs.get(name) is not None] for name in COSTS}
    return {name: float(np.mean(numbers)) for name, numbers in values.items() if numbers}


def _compared(table: Sequence[Line], measurements: Measurements, metric: str, baseline: str | None) -> list[Line]:
    """Lines with their difference to the baseline; p-values corrected over all lines that are compared."""
    differences = {
        line.label: measurements.compare({(line.label, metric): 1.0, (baseline, metric): -1.0})
        for line in table
        if baseline is not None and line.label != baseline
    }
    tested = {label: found.p for label, found in differences.items() if found is not None and found.seeds > 1}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return [replace(line, difference=differences.get(line.label), p_holm=adjusted.get(line.label)) for line in table]


def _columns(trials: Sequence[Trial], table: Sequence[Line], metric: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Metrics to show, and the heat map's. The parts of a benchmark (``pope_f1``) stay in the files."""
    aggregates: dict[str, None] = {}
    families: dict[str, None] = {}
    for trial in trials:
        scoring = (trial.result or {}).get("scoring") or {}
        aggregates |= dict.fromkeys(scoring.get("aggregates", {}))
        for benchmark, node in scoring.get("benchmarks", {}).items():
            rule = recorded_metric(node)
            names = [name for name in trial.metrics if name not in scoring["benchmarks"] and name not in aggregates]
            families |= dict.fromkeys(_parts(names, scoring["benchmarks"]) if rule and rule.own_names else [benchmark])
    published = dict.fromkeys(name for line in table for name in line.published)
    found = {name for line in table for name in line.metrics}
    shown = [name for name in {metric: None} | aggregates | families | published if name in found or name == metric]
    return tuple(shown), tuple(name for name in families if name in found)


def _parts(names: Sequence[str], benchmarks: Mapping[str, Any]) -> list[str]:
    """Names without the prefix of a benchmark (its parts have one)."""
    return [name for name in names if not any(name.startswith(f"{benchmark}_") for benchmark in benchmarks)]


def _labels_of_rows(node: Mapping[str, Any], lines: Mapping[str, Sequence[Trial]]) -> dict[str, list[str]]:
    labels: dict[str, list[str]] = {row: [] for row in node.get("rows") or {}}
    for label, trials in lines.items():
        labels.setdefault(trials[0].row, []).append(label)
    return {row: found or [row] for row, found in labels.items()}


def _failures(lines: Mapping[str, Sequence[Trial]]) -> list[Failure]:
    return [
        Failure(
            label=label,
            seed=trial.seed,
            status=trial.status,
            reason=trial.problem(),
            log_tail=trial.log_tail,
            folder=str(trial.folder or ""),
        )
        for label, trials in lines.items()
        for trial in trials
        if trial.result is None and trial.status != NOT_SELECTED
    ]


def _curves(lines: Mapping[str, Sequence[Trial]]) -> list[Curve]:
    """Loss of the stages that trained a trial's model; the lab's own (experts, LLM) are the same for all."""
    curves = []
    for label, trials in lines.items():
        for trial in trials:
            points: dict[str, list[tuple[float, float]]] = {}
            wanted = {"", *(trial.result or {}).get("costs", {}).get("trained_stages", [])}
            for record in trial.curve():
                stage = str(record.get("stage", ""))
                numbers = [record.get(name) for name in ("step", "loss")]
                if stage in wanted and all(isinstance(number, int | float) for number in numbers):
                    points.setdefault(stage, []).append((record["step"], record["loss"]))
            for stage, pairs in points.items():
                thin = pairs[:: max(1, len(pairs) // MAX_CURVE_POINTS)]
                steps, losses = zip(*thin, strict=True)
                curves.append(Curve(label=label, seed=trial.seed, stage=stage, steps=steps, losses=losses))
    return curves


def _kendall(lines: Sequence[Line]) -> dict[str, float]:
    """Kendall's tau-b of measured against published means, for metrics with at least three rows that have both."""
    from scipy import stats

    out = {}
    for name in dict.fromkeys(name for line in lines for name in line.published):
        both = [line for line in lines if name in line.metrics and name in line.published]
        pairs = [(line.metrics[name].mean, line.published[name]) for line in both]
        if len(pairs) >= 3 and not np.isnan(tau := float(stats.kendalltau(*zip(*pairs, strict=True)).statistic)):
            out[name] = tau
    return out


def _source(source: Any) -> str:
    if isinstance(source, Mapping):
        return ", ".join(f"table {text}" if key == "table" else str(text) for key, text in source.items())
    return str(source or "")


def _notes(
    node: Mapping[str, Any], lines: Sequence[Line], metric: str, baseline: str | None, blind: Sequence[str]
) -> list[str]:
    """What a reader must know before the numbers."""
    notes = []
    if not any(metric in line.metrics for line in lines):
        notes.append(f"No trial has the ranking metric '{metric}'.")
    if baseline is None:
        notes.append(f"The baseline '{node.get('baseline')}' is not a row of the sweep; no differences are shown.")
    if not blind:
        notes.append("No blind baseline (recipe=blind) is in this sweep: how much can be guessed is unknown.")
    if any(line.difference is not None and line.difference.seeds == 1 for line in lines):
        notes.append("Where a row has one seed only, intervals leave out training noise and nothing is significant.")
    if any(line.difference is not None and line.difference.question_std is None for line in lines):
        notes.append("Some rows were asked other questions than the baseline; their intervals are from seeds only.")
    return notes


def _left_out(lines: Mapping[str, Sequence[Trial]]) -> list[str]:
    """What is missing on purpose."""
    labels = [
        label
        for label, trials in lines.items()
        if any(trial.status == NOT_SELECTED and trial.result is None for trial in trials)
    ]
    return [f"Left out by sweep.only, not failed: {', '.join(labels)}."] if labels else []
