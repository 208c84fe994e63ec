"""Whether a config can work: builds the model without memory and checks what only the whole model can tell."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmexp.data.template import Template
from mmexp.data.turns import Turns
from mmexp.errors import UserError
from mmexp.evaluation.benchmark import Benchmark
from mmexp.evaluation.metrics import Metric
from mmexp.instantiate import Expected, instantiate, locate
from mmexp.interfaces import Decay, Source
from mmexp.planning.datasets import check_balance
from mmexp.planning.meta import meta_model


def validate(config: Mapping[str, Any]) -> None:
    """Raises ``UserError`` for the first thing in a resolved config that cannot work.

    Builds each stage's model on meta tensors (no weights, no memory), so shapes, depths, grids and widths are checked;
    then the context length, also for videos, that each stage's ``trainable`` patterns name parameters, and its balance
    datasets.
    """

    for name, stage in {**config["recipe"]["stages"], "evaluation": config["evaluation"]}.items():
        check_kinds("evaluation" if stage is config["evaluation"] else f"recipe.stages.{name}", stage)
        if "model" not in stage:
            continue
        model = meta_model(stage["model"])
        num_visual = visual_tokens(model)
        check_context(num_visual, model.llm.context_length, "llm (its context)")
        if "trainable" in stage:
            check_trainable(name, stage["trainable"], model)
            check_balance(name, stage["data"])
            key = f"recipe.stages.{name}.data.batching.max_length"
            check_context(num_visual, stage["data"]["batching"]["max_length"], key)
        for benchmark, node in (stage.get("benchmarks") or {}).items():
            if "video" in node and model.has_vision:
                check_video(benchmark, node, model)


def check_kinds(where: str, stage: Mapping[str, Any]) -> None:
    """What a stage builds only when it runs is of the classes that it expects; nothing of it is built here.

    Raises:
        UserError: the first that is not.
    """
    for key, node, expect in _built_later(stage):
        if isinstance(node, Mapping) and "_target_" in node:
            locate(str(node["_target_"]), f"{where}.{key}", expect)
        elif node is not None:
            raise UserError(f"{where}.{key}: has no _target_; it is {node!r}"[:200])


def _built_later(stage: Mapping[str, Any]) -> Iterator[tuple[str, Any, Expected]]:
    """(config key in the stage, node or None, what is expected)."""
    from lightning.pytorch.loggers import Logger
    from torch.optim import Optimizer

    data, schedule = stage.get("data") or {}, stage.get("schedule") or {}
    yield "optimizer", stage.get("optimizer"), Optimizer
    yield "schedule.decay", schedule.get("decay"), Decay
    yield "template", stage.get("template"), Template
    yield "data.template", data.get("template"), Template
    yield "data.turns", data.get("turns"), Turns
    for name, node in (data.get("datasets") or {}).items():
        yield f"data.datasets.{name}", node, Source
    for name, node in (stage.get("benchmarks") or {}).items():
        yield f"benchmarks.{name}", node, Benchmark
        yield f"benchmarks.{name}.metric", node.get("metric"), Metric
    for name, node in (((stage.get("runtime") or {}).get("logger") or {}).get("loggers") or {}).items():
        yield f"runtime.logger.loggers.{name}", node, Logger


def visual_tokens(model: Any) -> int:
    """Of the image that has most of them; 0 for a model without vision side."""
    return model.vision.max_num_tokens if model.has_vision else 0


def check_context(num_visual: int, length: int, key: str) -> None:
    """The visual tokens of one image and some text must fit."""
    if num_visual >= length:
        raise UserError(f"{key}: {length} positions are too few for {num_visual} visual tokens and a question")


def check_video(benchmark: str, node: Mapping[str, Any], model: Any) -> None:
    """The visual tokens of all frames of a video, an answer and some text must fit."""
    from mmexp.model.video.aggregation import Aggregation

    aggregation = instantiate(node["video"], f"benchmarks.{benchmark}.video", expect=Aggregation)
    num_visual = aggregation.num_tokens(aggregation.frames, model.vision.tokens_per_view)
    room = model.llm.context_length - int(node["max_new_tokens"])
    if num_visual >= room:
        raise UserError(
            f"video.frames: {aggregation.frames} frames make {num_visual} visual tokens; with {node['max_new_tokens']} "
            f"for the answer ({benchmark}) the LLM's context of {model.llm.context_length} positions has no room for a "
            "question; fewer frames, or video=max_pool or video=mean"
        )


def check_trainable(stage: str, trainable: Mapping[str, float], model: Any) -> None:
    """Every pattern names a parameter."""
    from mmexp.training.parameters import freeze_and_group

    try:
        freeze_and_group(model, trainable, 0.0)
    except UserError as error:
        raise UserError(f"recipe.stages.{stage}.{error}") from error
