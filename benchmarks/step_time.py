"""What the framework costs per step: a lab stage under Lightning against a bare PyTorch loop, in one process.

Same model, same batches, same optimizer; the two take turns, and the medians of their step times are compared.

    python benchmarks/step_time.py [--steps 60] [--rounds 3] [overrides ...]
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import nn

from mmexp.config import Composer
from mmexp.data.loader import TrainLoader
from mmexp.model.build import load_model
from mmexp.stages.graph import build_graph
from mmexp.stages.run import build_stage, run_stage
from mmexp.stages.store import Store
from mmexp.training.module import StageModule
from mmexp.training.schedule import make_schedule
from mmexp.training.stage import Stream, TrainStage


class StepTimes(lightning.Callback):
    """Seconds of each step, the loader's time included."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.ends.append(time.perf_counter())


def bare_loop(stage: TrainStage, module: StageModule, loader: TrainLoader) -> list[float]:
    """The loop that one would write by hand."""
    optimizer = torch.optim.AdamW(module.groups)
    scheduler = make_schedule(optimizer, loader.steps, stage.schedule["warmup_ratio"], stage.schedule["decay"])
    parameters = [parameter for group in module.groups for parameter in group["params"]]
    ends = []
    for window in loader:
        total = sum(batch.num_valid for batch in window)
        for batch in window:
            (module.model(batch) / total).backward()
        nn.utils.clip_grad_norm_(parameters, stage.schedule["clip_norm"])
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        ends.append(time.perf_counter())
    return ends


def lightning_loop(
    stage: TrainStage, module: StageModule, loader: TrainLoader, workdir: Path, runtime: dict
) -> list[float]:
    times = StepTimes()
    trainer = stage.trainer(workdir, runtime, 0, [])
    trainer.callbacks.append(times)
    trainer.fit(module, Stream(loader))
    return times.ends


def step_times(kind: str, spec: Any, store: Store, steps: int) -> list[float]:
    stage: TrainStage = build_stage(spec, store)
    stage.schedule = {**stage.schedule, "steps": steps}
    torch.set_num_threads(stage.num_threads or 1)
    lightning.seed_everything(stage.seed, verbose=False)
    model = load_model(stage.model, stage.init_from)
    module = StageModule(model, stage.trainable, stage.optimizer, stage.schedule)
    runtime = dict(spec.runtime)
    with tempfile.TemporaryDirectory() as folder:
        trainer = stage.trainer(Path(folder), runtime, 0, [])
        loader = stage.loader(model, trainer, Path(folder), runtime, 0)
        ends = (
            bare_loop(stage, module, loader)
            if kind == "bare"
            else lightning_loop(stage, module, loader, Path(folder), runtime)
        )
    return [after - before for before, after in itertools.pairwise(ends)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    with Composer("lab").open() as composer:
        config = composer.compose(arguments.overrides).resolved()
    graph, store = build_graph(config, "finetune"), Store.from_config(config)
    for name, spec in graph.stages.items():
        if name != "finetune":
            run_stage(spec, store, None)
    times: dict[str, list[float]] = {"bare": [], "lightning": []}
    for _ in range(arguments.rounds):
        for kind, collected in times.items():
            collected += step_times(kind, graph.stages["finetune"], store, arguments.steps)
    medians = {kind: statistics.median(collected) for kind, collected in times.items()}
    for kind, median in medians.items():
        print(f"{kind:10} {1000 * median:7.1f} ms per step")
    print(f"ratio      {medians['lightning'] / medians['bare']:7.3f}   (must be at most 1.15)")


if __name__ == "__main__":
    main()
