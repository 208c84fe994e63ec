"""Is a config possible? Builds the model without memory and checks what only the whole can tell."""

from collections.abc import Mapping
from typing import Any

from mmexp.errors import UserError
from mmexp.instantiate import instantiate
from mmexp.planning.datasets import check_balance
from mmexp.planning.meta import meta_model


def validate(config: Mapping[str, Any]) -> None:
    """Raise ``UserError`` for the first thing in a resolved config that cannot work.

    Builds each stage's model on meta tensors (no weights, no memory), so shapes, depths, grids and widths are checked;
    then the context length, also for videos, that each stage's ``trainable`` patterns name parameters, and its balance
    datasets.
    """

    for name, stage in {**config["recipe"]["stages"], "evaluation": config["evaluation"]}.items():
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
            if "video" in node and model.vision is not None:
                check_video(benchmark, node, model)


def visual_tokens(model: Any) -> int:
    """Of the image that has most of them; 0 for a model without vision side."""
    return model.vision.max_num_tokens if model.vision is not None else 0


def check_context(num_visual: int, length: int, key: str) -> None:
    """The visual tokens of one image and some text must fit."""
    if num_visual >= length:
        raise UserError(f"{key}: {length} positions are too few for {num_visual} visual tokens and a question")


def check_video(benchmark: str, node: Mapping[str, Any], model: Any) -> None:
    """The visual tokens of all frames that are wanted of a video, an answer and some text must fit."""
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
