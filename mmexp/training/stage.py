"""A training stage: from its frozen spec to the weights that it trained."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning
import torch

from mmexp.data.bad_samples import BadSampleBudget
from mmexp.data.build import ModelFacts, build_windows
from mmexp.data.loader import Shard, TrainLoader, WindowMaker
from mmexp.errors import UserError, nearest
from mmexp.files import METRICS_FILE
from mmexp.instantiate import instantiate
from mmexp.interfaces import Batch, Scorer
from mmexp.model.build import InitFrom, load_model, no_visual_tokens, save_trained, token_counter
from mmexp.model.feature_cache import FeatureStore
from mmexp.model.mllm import Mllm
from mmexp.training.callbacks import (
    CHECKPOINT,
    Checkpoints,
    MetricsFile,
    Progress,
    ValidateEvery,
    checkpoint_step,
)
from mmexp.training.loggers import open_loggers
from mmexp.training.module import StageModule

SHARDED = ("fsdp", "deepspeed")
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "bf16_true": "bf16-true"}


class TrainStage:
    """Trains part of a composed model on a mixture.

    Products: ``weights.safetensors`` (what it trained), ``metrics.jsonl`` (the curves), ``data.json`` (samples seen of
    each dataset, bad ones), ``skipped.jsonl`` if any were bad.

    Args:
        model: config node of the composed model.
        init_from: folder of the stage that it starts from, or None; a list of stages that trained experts apart gives
            their encoders (see ``load_trained``).
        trainable: pattern of parameter names -> learning rate; everything else is frozen.
        data: ``datasets``, ``template``, ``turns``, ``balance``, ``batching``, ``use_images``.
        optimizer: config node of a torch optimizer.
        schedule: ``steps``, ``warmup_ratio`` (0..1), ``decay``, ``clip_norm`` (0 or null: none).
        precision: ``fp32``, ``bf16`` (mixed) or ``bf16_true``.
        seed: of initialisation and data order.
        num_threads: of torch on the CPU; None keeps torch's default.
    """

    VERSION = 1

    def __init__(
        self,
        *,
        model: Mapping[str, Any],
        init_from: InitFrom,
        trainable: Mapping[str, float],
        data: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        schedule: Mapping[str, Any],
        precision: str,
        seed: int,
        num_threads: int | None,
    ) -> None:
        if precision not in PRECISIONS:
            raise UserError(f"precision: unknown '{precision}'; {nearest(precision, PRECISIONS)}")
        self.model, self.init_from, self.trainable, self.data = model, init_from, trainable, data
        self.optimizer, self.schedule, self.precision = optimizer, schedule, precision
        self.seed, self.num_threads = seed, num_threads

    def run(self, workdir: Path, runtime: Mapping[str, Any]) -> None:
        """Train, from the last checkpoint in ``workdir`` where there is one.

        Reads of ``runtime``: the node of that name in conf/trainer; ``progress``, ``trial`` and ``stage_name``, which
        the runner adds; and ``validation``, which a search with a pruner adds.
        """
        if self.num_threads is not None:
            torch.set_num_threads(self.num_threads)
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        # Lightning warns of frozen modules in evaluation mode (here on purpose) and of its own use of torch's pytree.
        warnings.filterwarnings("ignore", message=r".*in eval mode at the start of training|.*LeafSpec")
        lightning.seed_everything(self.seed, verbose=False)
        model = load_model(self.model, self.init_from)
        module = StageModule(model, self.trainable, self.optimizer, self.schedule)
        start = checkpoint_step(workdir)
        stage_name = runtime.get("stage_name", "stage")
        with open_loggers(runtime["logger"], runtime.get("trial"), stage_name) as loggers:
            trainer = self.trainer(workdir, runtime, start, loggers)
            loader = self.loader(model, trainer, workdir, runtime, start)
            checkpoint = str(workdir / CHECKPOINT) if start else None
            trainer.fit(module, Stream(loader), ckpt_path=checkpoint, weights_only=True)
        if trainer.is_global_zero:
            save_trained(model, workdir, self.init_from, module.trained)
            self._write_counts(workdir, loader)
            (workdir / CHECKPOINT).unlink(missing_ok=True)

    def trainer(self, workdir: Path, runtime: Mapping[str, Any], start: int, loggers: list[Any]) -> lightning.Trainer:
        """Lightning's Trainer for this stage, which starts from step ``start``."""
        metrics = MetricsFile(workdir / METRICS_FILE, runtime["log_every_steps"], start)
        callbacks: list[lightning.Callback] = [
            metrics,
            *self._validation(metrics, runtime),
            Checkpoints(workdir, runtime["checkpoint_every_steps"]),
        ]
        if "progress" in runtime:
            callbacks.append(Progress(runtime["progress"]))
        precision: Any = PRECISIONS[self.precision]
        return lightning.Trainer(
            max_steps=self.schedule["steps"],
            max_epochs=-1,
            accelerator=runtime["accelerator"],
            devices=runtime["devices"],
            num_nodes=runtime["num_nodes"],
            strategy=runtime["strategy"],
            precision=precision,
            logger=loggers or False,
            callbacks=callbacks,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )

    def _validation(self, metrics: MetricsFile, runtime: Mapping[str, Any]) -> list[lightning.Callback]:
        """What a search with a pruner asks for: ``{every_steps, scorer: {_target_, ...}}``; no part of the key."""
        asked = runtime.get("validation")
        if not asked:
            return []
        if any(name in str(runtime["strategy"]) for name in SHARDED):
            raise UserError(
                f"trainer.runtime.strategy: {runtime['strategy']} shards the model, so a single rank cannot validate it"
            )
        scorer = instantiate(
            asked["scorer"], "runtime.validation.scorer", expect=Scorer, batch_size=runtime["eval_batch_size"]
        )
        return [ValidateEvery(metrics, asked["every_steps"], scorer)]

    def loader(
        self, model: Mllm, trainer: lightning.Trainer, workdir: Path, runtime: Mapping[str, Any], start: int
    ) -> TrainLoader:
        """Windows of this rank from step ``start`` on, features filled."""
        shard = Shard(
            rank=trainer.global_rank, world_size=trainer.world_size, micro_batch_size=runtime["micro_batch_size"]
        )
        features = self._features(model, runtime)
        facts = ModelFacts(
            tokenizer=model.llm.tokenizer,
            resolutions=model.vision.resolutions if model.has_vision else {},
            num_visual_tokens=token_counter(model) if model.has_vision else no_visual_tokens,
            features=features,
        )
        windows = build_windows(
            self.data, seed=self.seed, facts=facts, shard=shard, cache_bytes=int(runtime["data_cache_bytes"])
        )
        if features:
            features.fill(lambda name: windows.views(name, self.schedule["steps"]))
        return TrainLoader(
            windows=windows,
            steps=self.schedule["steps"],
            start_step=start,
            num_workers=runtime["num_workers"],
            pin_memory=trainer.strategy.root_device.type == "cuda",
            budget=self._budget(windows, workdir),
        )

    def _features(self, model: Mllm, runtime: Mapping[str, Any]) -> FeatureStore | None:
        if not (runtime["feature_cache"] and self.data["use_images"]):
            return None
        return FeatureStore(
            model, Path(runtime["cache_dir"]), int(runtime["feature_cache_bytes"]), runtime.get("feature_taps")
        )

    def _budget(self, windows: WindowMaker, workdir: Path) -> BadSampleBudget:
        return BadSampleBudget(
            limit=self.data["batching"]["max_bad_samples"],
            num_samples=len(windows.reader.mixture),
            report=workdir / "skipped.jsonl",
        )

    def _write_counts(self, workdir: Path, loader: TrainLoader) -> None:
        mixture = loader.windows.reader.mixture
        num_samples = self.schedule["steps"] * self.data["batching"]["batch_size"]
        counts = {"samples": mixture.counts(num_samples), "skipped": len(loader.budget.origins)}
        (workdir / "data.json").write_text(json.dumps(counts, indent=1))


class Stream:
    """The loader as Lightning sees it: no length (a resumed loader has only what is left) and no state to restore."""

    def __init__(self, loader: TrainLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[list[Batch]]:
        return iter(self.loader)
