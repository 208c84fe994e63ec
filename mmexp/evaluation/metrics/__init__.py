"""Scoring rules: one file per family of benchmarks, found by name."""

from mmexp.errors import UserError, nearest
from mmexp.evaluation.metrics.anls import Anls
from mmexp.evaluation.metrics.base import HEADLINE, Answers, Metric
from mmexp.evaluation.metrics.choice import MultipleChoice
from mmexp.evaluation.metrics.exact_match import Gqa, LabFamily
from mmexp.evaluation.metrics.mmbench import MmBench
from mmexp.evaluation.metrics.mme import Mme
from mmexp.evaluation.metrics.ocrbench import OcrBench
from mmexp.evaluation.metrics.pope import Pope
from mmexp.evaluation.metrics.referring import Referring
from mmexp.evaluation.metrics.relaxed import RelaxedAccuracy
from mmexp.evaluation.metrics.scienceqa import ScienceQa
from mmexp.evaluation.metrics.seed import SeedBench
from mmexp.evaluation.metrics.video_qa import VideoQa
from mmexp.evaluation.metrics.vqa import TextVqaAccuracy, VqaAccuracy

METRICS: dict[str, type[Metric]] = {
    "anls": Anls,
    "gqa": Gqa,
    "lab_family": LabFamily,
    "mmbench": MmBench,
    "mme": Mme,
    "multiple_choice": MultipleChoice,
    "ocrbench": OcrBench,
    "pope": Pope,
    "referring": Referring,
    "relaxed_accuracy": RelaxedAccuracy,
    "scienceqa": ScienceQa,
    "seed": SeedBench,
    "textvqa": TextVqaAccuracy,
    "video_qa": VideoQa,
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
