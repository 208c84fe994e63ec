"""Training for a fixed number of steps: resumable, and the same after a kill as without one.

Batches are drawn from the step's number, so nothing random has to be saved.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmexp.files import replacing

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Length and learning rate of a training: the node ``training.budget`` of a lab stage.

    Args:
        steps: optimiser steps.
        lr: highest learning rate.
        warmup_steps: linear rise from 0 to it.
        hold: share of the steps, 0..1, before it falls to 0 along a cosine.
        betas, weight_decay: of AdamW.
        clip_norm: largest norm of the gradient.
    """

    steps: int
    lr: float
    warmup_steps: int
    hold: float
    betas: tuple[float, float]
    weight_decay: float
    clip_norm: float

    def lr_at(self, step: int) -> float:
        """Learning rate of 0-based ``step``."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        held = self.hold * self.steps
        fall = max(0.0, (step - held) / max(1.0, self.steps - held))
        return self.lr * warm * 0.5 * (1 + math.cos(math.pi * fall))


def train_fixed_steps(
    name: str,
    module: nn.Module,
    loss_of: Callable[[int], torch.Tensor],
    budget: Budget,
    workdir: Path,
    runtime: Mapping[str, Any],
) -> list[float]:
    """Train ``module`` by the loss of each step; returns the loss of every step.

    Continues from ``workdir/checkpoint.pt`` where there is one. ``runtime`` may hold ``checkpoint_every_steps`` and
    ``progress(step, total)``.
    """
    from tqdm import tqdm

    optimizer = torch.optim.AdamW(
        module.parameters(), lr=budget.lr, betas=(budget.betas[0], budget.betas[1]), weight_decay=budget.weight_decay
    )
    losses = _resume(workdir / CHECKPOINT, module, optimizer)
    progress = runtime.get("progress") or (lambda step, total: None)
    every = int(runtime.get("checkpoint_every_steps", 100))
    module.train()
    bar = tqdm(total=budget.steps, initial=len(losses), desc=name, unit="step", disable=None)
    for step in range(len(losses), budget.steps):
        losses.append(_step(module, optimizer, loss_of(step), budget, step))
        bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
        bar.update()
        progress(step + 1, budget.steps)
        if (step + 1) % every == 0 and step + 1 < budget.steps:
            _save(workdir / CHECKPOINT, module, optimizer, losses)
    bar.close()
    module.eval()
    return losses


def _step(module: nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor, budget: Budget, step: int) -> float:
    for group in optimizer.param_groups:
        group["lr"] = budget.lr_at(step)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), budget.clip_norm)
    optimizer.step()
    return float(loss.detach())


def _save(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, losses: list[float]) -> None:
    with replacing(path) as temporary:
        torch.save({"module": module.state_dict(), "optimizer": optimizer.state_dict(), "losses": losses}, temporary)


def _resume(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> list[float]:
    if not path.is_file():
        return []
    state = torch.load(path, weights_only=True)
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    return list(state["losses"])
