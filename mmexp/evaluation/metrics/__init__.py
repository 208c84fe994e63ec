"""Scoring rules: one file per family of benchmarks, found by name."""

from mmexp.errors import UserError, nearest
from mmexp.evaluation.metrics.base import HEADLINE, Answers, Metric
from mmexp.evaluation.metrics.choice import MultipleChoice
from mmexp.evaluation.metrics.exact_match import Gqa, LabFamily
from mmexp.evaluation.metrics.mme import Mme
from mmexp.evaluation.metrics.pope import Pope
from mmexp.evaluation.metrics.vqa import TextVqaAccuracy, VqaAccuracy

METRICS: dict[str, type[Metric]] = {
    "gqa": Gqa,
    "lab_family": LabFamily,
    "mme": Mme,
    "multiple_choice": MultipleChoice,
    "pope": Pope,
    "textvqa": TextVqaAccuracy,
    "vqav2": VqaAccuracy,
}

__all__ = ["HEADLINE", "METRICS", "Answers", "Metric", "make_metric", "metric_name"]


def make_metric(name: str, variant: str) -> Metric:
    """Raises ``UserError`` for a name or variant that does not exist."""
    if name not in METRICS:
        raise UserError(f"metric: no '{name}'; {nearest(name, METRICS)}")
    return METRICS[name](variant)


def metric_name(metric: Metric, benchmark: str, value: str) -> str:
    """Name under which a benchmark's value is reported: ``pope``, ``pope_f1``, or a lab family's own."""
    if value == HEADLINE:
        return benchmark
    return value if metric.own_names else f"{benchmark}_{value}"
