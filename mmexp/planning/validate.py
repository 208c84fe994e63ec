"""Is a config possible? Builds the model without memory and checks what only the whole can tell."""

from collections.abc import Mapping
from typing import Any

from mmexp.errors import UserError
from mmexp.planning.datasets import check_balance
from mmexp.planning.meta import meta_model


def validate(config: Mapping[str, Any]) -> None:
    """Raise ``UserError`` for the first thing in a resolved config that cannot work.

    Builds each stage's model on meta tensors (no weights, no memory), so shapes, depths, grids and widths are checked;
    then the context length, that each stage's ``trainable`` patterns name parameters, and its balance datasets.
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


def visual_tokens(model: Any) -> int:
    """Of the image that has most of them; 0 for a model without vision side."""
    return model.vision.max_num_tokens if model.vision is not None else 0


def check_context(num_visual: int, length: int, key: str) -> None:
    """The visual tokens of one image and some text must fit."""
    if num_visual >= length:
        raise UserError(f"{key}: {length} positions are too few for {num_visual} visual tokens and a question")


def check_trainable(stage: str, trainable: Mapping[str, float], model: Any) -> None:
    """Every pattern names a parameter."""
    from mmexp.training.parameters import freeze_and_group

    try:
        freeze_and_group(model, trainable, 0.0)
    except UserError as error:
        raise UserError(f"recipe.stages.{stage}.{error}") from error
