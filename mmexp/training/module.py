"""The LightningModule of a stage: one Lightning batch is one optimizer step over a window of micro-batches.

The loss is the sum over valid tokens divided by the number of valid tokens of the whole window, on all ranks, so that
1 x 4 accumulation equals 4 x 1 (the mean of micro-batch means, as in the official code, does not).
"""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import lightning
import torch
from torch import nn

from mmexp.instantiate import instantiate
from mmexp.interfaces import Batch
from mmexp.model.mllm import Mllm, public_name
from mmexp.model.transfer import to_device
from mmexp.training.parameters import freeze_and_group, trained_names
from mmexp.training.schedule import make_schedule

MODEL_PREFIX = "model."


class StageModule(lightning.LightningModule):
    """Trains what ``trainable`` names.

    Args:
        model: the composed model.
        trainable: pattern -> learning rate.
        optimizer: config node of a torch optimizer.
        schedule: ``steps``, ``warmup_ratio``, ``decay``, ``clip_norm``, and optionally ``floor``.
    """

    strict_loading = False  # checkpoints hold only what is trained

    def __init__(
        self, model: Mllm, trainable: Mapping[str, float], optimizer: Mapping[str, Any], schedule: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.optimizer_node, self.schedule = dict(optimizer), dict(schedule)
        self.groups = freeze_and_group(model, trainable, self.optimizer_node.get("weight_decay", 0.0))
        self.trained = set(trained_names(model))
        self.last: dict[str, torch.Tensor | float] = {}

    def training_step(self, window: list[Batch], index: int) -> None:
        optimizer: Any = self.optimizers()
        scheduler: Any = self.lr_schedulers()
        total = self._total_valid(window)
        loss = torch.zeros((), device=self.device)
        for position, batch in enumerate(window):
            with nullcontext() if position == len(window) - 1 else self._no_sync():
                part = self.model(batch) / total
                self.manual_backward(part * self.trainer.world_size)
            loss += part.detach()
        parameters = [parameter for group in self.groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.schedule["clip_norm"] or float("inf"))
        self.last = {"lr": optimizer.param_groups[0]["lr"]}
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        self.last |= {"loss": loss, "grad_norm": norm, "valid_tokens": float(total)}

    def configure_optimizers(self) -> Any:
        optimizer = instantiate(self.optimizer_node, "optimizer", expect=torch.optim.Optimizer, params=self.groups)
        steps, ratio, decay = (self.schedule[key] for key in ("steps", "warmup_ratio", "decay"))
        floor = self.schedule.get("floor", 0.0)
        return {"optimizer": optimizer, "lr_scheduler": make_schedule(optimizer, steps, ratio, decay, floor)}

    def transfer_batch_to_device(self, batch: list[Batch], device: torch.device, _index: int) -> list[Batch]:
        return [to_device(micro, device) for micro in batch]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        names = {public_name(full.removeprefix(MODEL_PREFIX)): full for full in checkpoint["state_dict"]}
        kept = {full: checkpoint["state_dict"][full] for short, full in names.items() if short in self.trained}
        checkpoint["state_dict"] = kept

    def _total_valid(self, window: list[Batch]) -> int:
        total = sum(batch.num_valid for batch in window)
        if self.trainer.world_size > 1:
            counts: Any = self.all_gather(torch.tensor(total, device=self.device))
            total = int(counts.sum())
        return max(total, 1)

    def _no_sync(self) -> Any:
        wrapped: Any = self.trainer.strategy.model
        return wrapped.no_sync() if hasattr(wrapped, "no_sync") else nullcontext()
