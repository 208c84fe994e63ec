"""A model scored in the middle of its training, which then continues as if nothing had happened."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from mmexp.evaluation.benchmark import Benchmark
from mmexp.evaluation.generation import generate_answers
from mmexp.evaluation.result import aggregate
from mmexp.instantiate import instantiate


class Validation:
    """Metrics of a model on some benchmarks; leaves its modes, its attention and all random states as they were.

    Args:
        benchmarks: name -> config node of a ``Benchmark``.
        aggregates: name -> ``{metrics: {metric: factor}}``; those that lack a metric are left out.
        template: config node of the conversation template.
        use_images: False asks without the images.
        precision: ``fp32`` or ``bf16`` (autocast).
        batch_size: questions decoded together.
    """

    def __init__(
        self,
        *,
        benchmarks: Mapping[str, Any],
        aggregates: Mapping[str, Any],
        template: Mapping[str, Any],
        use_images: bool,
        precision: str,
        batch_size: int,
    ) -> None:
        self.benchmarks: dict[str, Benchmark] = {
            name: instantiate(node, f"benchmarks.{name}", expect=Benchmark) for name, node in benchmarks.items()
        }
        self.questions = {name: benchmark.questions() for name, benchmark in self.benchmarks.items()}
        self.aggregates, self.template, self.use_images = aggregates, template, use_images
        self.precision, self.batch_size = precision, batch_size

    def __call__(self, model: Any) -> dict[str, float]:
        """Metrics and aggregates by name."""
        device = next(model.parameters()).device.type
        autocast = torch.autocast(device, torch.bfloat16) if self.precision == "bf16" else nullcontext()
        metrics: dict[str, float] = {}
        with without_trace(model), torch.no_grad(), autocast:
            for name, benchmark in self.benchmarks.items():
                predictions = generate_answers(
                    model,
                    self.template,
                    self.questions[name],
                    use_images=self.use_images,
                    batch_size=self.batch_size,
                    max_new_tokens=benchmark.max_new_tokens,
                    progress=lambda more: None,
                    aggregation=benchmark.aggregation,
                )
                metrics |= benchmark.metrics(name, benchmark.answers(self.questions[name], predictions))
        return metrics | aggregate(metrics, self.aggregates)


@contextmanager
def without_trace(model: Any) -> Iterator[None]:
    """Evaluation mode; afterwards each module's mode, the LLM's attention and all random states are as before."""
    modes = {module: module.training for module in model.modules()}
    attention = model.llm.attention
    states = (random.getstate(), np.random.get_state())
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    model.eval()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        if model.llm.attention != attention:
            model.llm.network.set_attn_implementation(attention)
            model.llm.attention = attention
        for module, training in modes.items():
            module.training = training
