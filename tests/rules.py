"""The shipped metrics by short names."""

from typing import Any

from mmexp.evaluation import metrics
from mmexp.evaluation.metrics import FORMER_NAMES, Metric


def metric_node(name: str, variant: str) -> dict[str, Any]:
    """A benchmark's node ``metric``."""
    return {"_target_": f"mmexp.evaluation.metrics.{FORMER_NAMES[name]}", "variant": variant}


def make_metric(name: str, variant: str) -> Metric:
    return metrics.make_metric(metric_node(name, variant))
