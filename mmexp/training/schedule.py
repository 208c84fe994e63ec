"""Learning-rate schedule: linear warm-up, then a decay (config group ``decay``), both from and to a floor."""

import math
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mmexp.errors import UserError
from mmexp.instantiate import instantiate
from mmexp.interfaces import Decay


class Cosine:
    """Half a cosine wave, from 1 to 0."""

    def factor(self, progress: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * progress))


class Linear:
    """A straight line from 1 to 0."""

    def factor(self, progress: float) -> float:
        return 1 - progress


class Constant:
    """No decay."""

    def factor(self, progress: float) -> float:
        return 1.0


def make_schedule(
    optimizer: Optimizer, steps: int, warmup_ratio: float, decay: Mapping[str, Any], floor: float = 0.0
) -> LambdaLR:
    """As transformers' schedulers: ``ceil(steps * warmup_ratio)`` warm-up steps that begin at the floor.

    Args:
        steps: optimizer steps of the stage.
        warmup_ratio: share of them, 0..1.
        decay: config node of a ``Decay``.
        floor: least learning rate as a share of the highest, 0 to below 1 (Honeybee's minimum; others have none).

    Raises:
        UserError: a floor outside its range, or a decay that cannot be built.
    """
    if not 0 <= floor < 1:
        raise UserError(f"schedule.floor: {floor}; a share of the learning rate, from 0 to below 1")
    falling = make_decay(decay)
    warmup_steps = math.ceil(steps * warmup_ratio)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        return falling.factor((step - warmup_steps) / max(1, steps - warmup_steps))

    return LambdaLR(optimizer, lambda step: floor + (1 - floor) * factor(step))


def make_decay(node: Mapping[str, Any]) -> Decay:
    """Raises ``UserError`` for a node that is no decay."""
    if not isinstance(node, Mapping):
        raise UserError(f"schedule.decay: '{node}' is not a node with _target_; choose one by decay=NAME")
    decay: Decay = instantiate(node, "schedule.decay", expect=Decay)
    return decay
