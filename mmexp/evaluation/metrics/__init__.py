"""Scoring rules: one file per family of benchmarks, named by ``_target_`` in a benchmark's node ``metric``."""

from collections.abc import Mapping
from typing import Any

from mmexp.errors import UserError
from mmexp.evaluation.metrics.base import HEADLINE, Answers, Metric
from mmexp.instantiate import instantiate, locate

FORMER_NAMES = {
    "anls": "anls.Anls",
    "gqa": "exact_match.Gqa",
    "lab_family": "exact_match.LabFamily",
    "mmbench": "mmbench.MmBench",
    "mme": "mme.Mme",
    "multiple_choice": "choice.MultipleChoice",
    "ocrbench": "ocrbench.OcrBench",
    "pope": "pope.Pope",
    "referring": "referring.Referring",
    "relaxed_accuracy": "relaxed.RelaxedAccuracy",
    "scienceqa": "scienceqa.ScienceQa",
    "seed": "seed.SeedBench",
    "textvqa": "vqa.TextVqaAccuracy",
    "video_qa": "video_qa.VideoQa",
    "vqav2": "vqa.VqaAccuracy",
}
"""How results of earlier versions call a metric -> its class in this package."""

__all__ = ["HEADLINE", "Answers", "Metric", "make_metric", "metric_name", "names_itself", "recorded_metric"]


def make_metric(node: Mapping[str, Any], key: str = "metric") -> Metric:
    """The scoring rule that a node ``{_target_, variant, ...}`` describes.

    Raises:
        UserError: no such class or variant, or a class that is no ``Metric``.
    """
    if isinstance(node, str):
        hint = f"metric: {{_target_: {_former(node)}, variant: ...}}" if node in FORMER_NAMES else "see docs/extend.md"
        raise UserError(f"{key}: '{node}' is not a node; write {hint}")
    metric: Metric = instantiate(node, key, expect=Metric)
    return metric


def recorded_metric(record: Mapping[str, Any]) -> Metric | None:
    """The rule that a result was scored by: of an entry of its ``scoring.benchmarks``, also of earlier versions.

    Returns:
        None when the entry does not say, or names what is not there any more.
    """
    node = record.get("metric")
    if isinstance(node, str) and node in FORMER_NAMES:
        node = {"_target_": _former(node), "variant": record.get("variant")}
    try:
        return make_metric(node) if isinstance(node, Mapping) else None
    except UserError:
        return None


def names_itself(node: Any) -> bool:
    """Whether the metric of a benchmark's node reports values under their own names, such as question families."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        return False
    found: Any = locate(str(node["_target_"]), "metric", Metric)
    return bool(found.own_names)


def metric_name(metric: Metric, benchmark: str, value: str) -> str:
    """Name under which a benchmark's value is reported: ``pope``, ``pope_f1``, or a lab family's own."""
    if value == HEADLINE:
        return benchmark
    return value if metric.own_names else f"{benchmark}_{value}"


def _former(name: str) -> str:
    return f"{__name__}.{FORMER_NAMES[name]}"
