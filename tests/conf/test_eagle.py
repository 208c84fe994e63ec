"""Eagle's mixtures and average against the fact sheet's figures."""

import re
from typing import Any

import pytest
from omegaconf import OmegaConf

from mmexp.config import config_root
from mmexp.evaluation.result import aggregate

PAPER = config_root() / "conf" / "scale" / "paper"
# README of the release: GQA, MME, OCRBench, SQA-I, POPE, TextVQA, SEED-I, ChartQA, and the average of section 3.0.
RELEASED = {
    "X4-7B": ((64.8, 1561, 540, 70.5, 88.4, 70.9, 73.4, 67.5), 709.4),
    "X5-7B": ((64.9, 1528, 529, 69.8, 88.8, 71.2, 73.9, 67.8), 707.1),
    "X4-13B": ((66.3, 1627, 561, 73.1, 87.7, 73.9, 74.4, 70.5), 729.2),
    "X5-13B": ((66.2, 1609, 574, 72.8, 87.8, 74.2, 74.1, 69.9), 728.6),
}


@pytest.mark.parametrize("model", RELEASED)
def test_the_hypothesis_for_the_average_gives_the_figures_of_the_fact_sheet(model: str) -> None:
    (gqa, mme, ocrbench, sqa, pope, textvqa, seed, chartqa), expected = RELEASED[model]
    metrics = {"gqa": gqa, "mme_perception": mme, "ocrbench": ocrbench / 10, "sqa": sqa, "pope": pope}
    metrics |= {"textvqa_ocr": textvqa, "seed_image": seed, "chartqa": chartqa}
    nodes: Any = OmegaConf.to_container(OmegaConf.load(PAPER / "benchmark" / "eagle.yaml"))
    values = aggregate(metrics, nodes["aggregates"])
    assert round(values["eagle_avg"], 1) == expected
    assert values["eagle_avg_without_gqa"] == pytest.approx((8 * expected - 10 * gqa) / 7, abs=0.1)


def test_the_mixtures_have_the_published_numbers_of_samples() -> None:
    texts = [(PAPER / "data" / f"{name}.yaml").read_text() for name in ("eagle_934k", "eagle_1_8m")]
    counts = [[int(count) for count in re.findall(r"^    \w+:    # (\d+)k, ", text, re.MULTILINE)] for text in texts]
    assert (len(counts[0]), sum(counts[0])) == (8, 933)
    assert (len(counts[1]), sum(counts[0]) + sum(counts[1])) == (6, 1813)
