"""Learning-rate schedule: linear warm-up, then cosine or linear decay, both from and to a floor, or constant."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mmexp.errors import UserError, nearest

DECAYS = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1 - progress,
    "constant": lambda progress: 1.0,
}


def make_schedule(optimizer: Optimizer, steps: int, warmup_ratio: float, decay: str, floor: float = 0.0) -> LambdaLR:
    """As transformers' schedulers: ``ceil(steps * warmup_ratio)`` warm-up steps that begin at the floor.

    Args:
        steps: optimizer steps of the stage.
        warmup_ratio: share of them, 0..1.
        decay: ``cosine``, ``linear`` or ``constant``.
        floor: least learning rate as a share of the highest, 0 to below 1 (Honeybee's minimum; others have none).
    """
    if not 0 <= floor < 1:
        raise UserError(f"schedule.floor: {floor}; a share of the learning rate, from 0 to below 1")
    if decay not in DECAYS:
        raise UserError(f"schedule.decay: no '{decay}'; {nearest(decay, DECAYS)}")
    warmup_steps = math.ceil(steps * warmup_ratio)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        return DECAYS[decay]((step - warmup_steps) / max(1, steps - warmup_steps))

    return LambdaLR(optimizer, lambda step: floor + (1 - floor) * factor(step))
