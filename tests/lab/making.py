"""A miniature lab: the shipped config made small, so that a test sees the real nodes."""

from functools import cache
from typing import Any

from mmexp.config import Composer
from mmexp.lab.world import WorldSpec

WORLD = {
    "image_size": 64,
    "grid": 4,
    "min_objects": 2,
    "max_objects": 4,
    "noise": 12,
    "color_jitter": 16,
    "sign_percent": 75,
    "glyph_size": 2,
}
FAMILIES = (
    "existence",
    "count",
    "attribute",
    "absolute_position",
    "relative_position",
    "reading",
    "multiple_choice",
    "referring_box",
    "referring_region",
    "instruction",
)


def spec(**changes: int) -> WorldSpec:
    return WorldSpec.from_config({**WORLD, **changes})


@cache
def lab_config(*overrides: str) -> dict[str, Any]:
    with Composer("lab").open() as composer:
        return composer.compose(list(overrides)).resolved()


def stage_node(name: str, *overrides: str) -> dict[str, Any]:
    """Arguments of a stage of the shipped lab."""
    node = dict(lab_config(*overrides)["lab"]["stages"][name])
    node.pop("_target_")
    node.pop("runtime")
    return node


def world_node(**changes: Any) -> dict[str, Any]:
    families = {family: 1 for family in FAMILIES}
    small = {
        "world": WORLD,
        "captions": {"align": 6},
        "questions": {
            "finetune": {"images": 12, **{family: 2 for family in FAMILIES}},
            "val": {"images": 5, **families},
            "test": {"images": 7, **families},
        },
        "qa": ["val", "test"],
        "held_out": ["val", "test"],
        "pope": {"split": "test", "statistics": "finetune", "images": 5, "each": 2},
        "seed": 0,
    }
    return {**small, **changes}
