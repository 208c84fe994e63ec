"""Is a config possible? Builds the model without memory and checks what only the whole can tell."""

from collections.abc import Mapping
from typing import Any

from mmexp.errors import UserError


def validate(config: Mapping[str, Any]) -> None:
    """Raise ``UserError`` for the first thing in a resolved config that cannot work.

    Builds the model on meta tensors (no weights, no memory), so shapes, depths, grids and widths are checked; then the
    context length, and that each stage's ``trainable`` patterns name parameters.
    """
    from mmexp.model.build import build_meta_model

    model = build_meta_model(config["model"])
    image_size = max(int(node["image_size"]) for node in config["model"]["encoders"].values())
    num_visual = model.vision.num_tokens((image_size, image_size))
    check_context(num_visual, model.llm.context_length, "llm (its context)")
    for name, stage in config["recipe"]["stages"].items():
        if "trainable" not in stage:
            continue
        check_trainable(name, stage["trainable"], model)
        if stage["data"]["use_images"]:
            key = f"recipe.stages.{name}.data.batching.max_length"
            check_context(num_visual, stage["data"]["batching"]["max_length"], key)


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
