"""The shipped benchmark configs of scale paper: each is built, and `core` has what the averages need."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmexp.errors import UserError
from mmexp.evaluation.benchmark import Benchmark
from mmexp.evaluation.metrics import Metric
from mmexp.instantiate import instantiate

SCALE = Path(__file__).parents[2] / "conf" / "scale" / "paper"
FILES = sorted(
    path
    for path in (SCALE / "benchmark").glob("*.yaml")
    if not path.read_text().startswith("# @package _global_\n")  # those choose benchmarks rather than being one
)
LETTERS = ("mmbench", "mmbench_rotated", "seed_image", "sqa", "scienceqa")
FORMATS = dict.fromkeys(LETTERS, "letter") | {"vizwiz": "unanswerable", "ocrbench": None}
FORMATS |= dict.fromkeys(("refcoco", "refcocop", "refcocog"), "box")
VIDEO = ("activitynet_qa", "msrvtt_qa", "msvd_qa")
FORMATS |= dict.fromkeys(VIDEO)
AGGREGATION = OmegaConf.load(SCALE.parents[1] / "video" / "concat.yaml")


def load(path):
    node = OmegaConf.load(path)
    if "video" in node:
        node.video = "chosen by the group video"
    return OmegaConf.to_container(OmegaConf.merge({"paths": {"data": "data"}}, node), resolve=True)


def test_none_is_missed():
    named = {"pope", "mme", "vqav2", "gqa", "textvqa", "vizwiz", "chartqa", "docvqa", "infovqa", *FORMATS}
    assert named <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_benchmark(path):
    assert path.read_text().startswith(f"# @package benchmarks.{path.stem}\n")
    node = load(path)
    node.pop("paths")
    if path.stem in VIDEO:
        node["video"] = OmegaConf.to_container(AGGREGATION)
    benchmark = instantiate(node, f"benchmarks.{path.stem}")
    assert isinstance(benchmark, Benchmark)
    assert isinstance(benchmark.metric, Metric)
    assert benchmark.response_format == FORMATS.get(path.stem, "word")
    with pytest.raises(UserError, match="no file 'data/eval/"):
        benchmark.questions()


def test_core_has_what_the_averages_need():
    chosen = [entry for entry in load(SCALE / "benchmark" / "core.yaml")["defaults"] if entry != "_self_"]
    aggregates = load(SCALE / "scale_settings.yaml")["aggregates"]
    needed = {metric for node in aggregates.values() for metric in node["metrics"]}
    assert needed
    assert all(any(metric == name or metric.startswith(f"{name}_") for name in chosen) for metric in needed)
    assert set(chosen) <= {path.stem for path in FILES}
