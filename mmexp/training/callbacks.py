"""What happens beside the steps: the metrics file, progress, checkpoints that a kill cannot corrupt."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

CHECKPOINT = "last.ckpt"


class MetricsFile(Callback):
    """Appends a line per ``every`` steps to ``metrics.jsonl``: what loggers mirror.

    Lines past the checkpoint that a resumed run starts from are dropped first, so no step occurs twice.
    """

    def __init__(self, path: Path, every: int, start_step: int) -> None:
        self.path, self.every, self.started = path, every, time.monotonic()
        lines = path.read_text().splitlines() if path.is_file() else []
        kept = [line for line in lines if line and json.loads(line)["step"] <= start_step]
        path.write_text("".join(line + "\n" for line in kept))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if trainer.is_global_zero and (step % self.every == 0 or step in (1, trainer.max_steps)):
            values = {name: float(value) for name, value in pl_module.last.items()}  # type: ignore[union-attr, operator]
            record = {"step": step, **values, "seconds": round(time.monotonic() - self.started, 3)}
            with self.path.open("a") as file:
                file.write(json.dumps(record) + "\n")
            for logger in trainer.loggers:
                logger.log_metrics(values, step)


class Progress(Callback):
    """Reports (steps done, steps in all) after each step."""

    def __init__(self, progress: Callable[[int, int], None]) -> None:
        self.progress = progress

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_global_zero:
            self.progress(trainer.global_step, trainer.max_steps)


class ValidateEvery(Callback):
    """Every ``every`` steps: a line ``{"step", "val/<metric>", ...}`` in ``metrics.jsonl``.

    Comes before ``Checkpoints``: a checkpoint of a step then has its validation behind it.

    Args:
        metrics: writes the other lines; its clock is stopped meanwhile.
        every: steps between validations; there is one after the last step only if it falls on it.
        score: a model's metrics; must leave no trace in the model or in any random state.
    """

    def __init__(self, metrics: MetricsFile, every: int, score: Callable[[Any], dict[str, float]]) -> None:
        self.metrics, self.every, self.score = metrics, every, score

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step % self.every or not trainer.is_global_zero:
            return
        began = time.monotonic()
        values = {f"val/{name}": value for name, value in self.score(pl_module.model).items()}
        self.metrics.started += time.monotonic() - began
        with self.metrics.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for logger in trainer.loggers:
            logger.log_metrics(values, step)


class Checkpoints(Callback):
    """Every ``every`` steps: trained weights, optimizer, schedule and random state, by an atomic rename."""

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step % self.every == 0 and step < trainer.max_steps:
            # Not files.replacing: all ranks write a sharded checkpoint, so its temporary name must be theirs in common.
            temporary = self.folder / f"{CHECKPOINT}.tmp"
            trainer.save_checkpoint(temporary)
            if trainer.is_global_zero:
                temporary.replace(self.folder / CHECKPOINT)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["torch_rng"] = torch.get_rng_state()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        torch.set_rng_state(checkpoint["torch_rng"])


def checkpoint_step(folder: Path) -> int:
    """Optimizer steps at which the checkpoint in ``folder`` was written; 0 where there is none."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return 0
    return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"])
