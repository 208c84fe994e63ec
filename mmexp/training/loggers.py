"""Mirrors of a trial for people: Lightning loggers by config. The run directory is what counts.

A trial is one W&B run (or one folder of TensorBoard and CSV files). The stages that are trained for it log live, under
their own prefix; the curves of a stage that another trial has trained already are copied when the trial ends, with its
scores.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from mmexp.instantiate import instantiate

WANDB = "lightning.pytorch.loggers.WandbLogger"
WANDB_INIT_TIMEOUT_S = 20


@contextmanager
def open_loggers(node: Mapping[str, Any], trial: Mapping[str, Any] | None, stage: str) -> Iterator[list[Any]]:
    """The loggers of the group ``logger``, closed with the right status.

    Args:
        node: ``{"loggers": {name: {_target_, ...}}}``.
        trial: ``key``, ``sweep``, ``row``, ``tags``, ``config``; None logs nothing: a stage made for its own sake
            (``mmexp lab build``) belongs to no trial.
        stage: prefix of the curves.
    """
    loggers = [make_logger(dict(logger), trial, stage) for logger in node["loggers"].values()] if trial else []
    try:
        for logger in loggers:
            logger.log_hyperparams(dict(trial["config"]) if trial else {})
        yield loggers
    except BaseException:
        close(loggers, "failed")
        raise
    close(loggers, "success")


def make_logger(node: dict[str, Any], trial: Mapping[str, Any], stage: str) -> Any:
    """One logger of one trial: its folder, or its W&B run, which the next stage, or a resumed one, continues."""
    Path(node["save_dir"]).mkdir(parents=True, exist_ok=True)
    if node["_target_"] != WANDB:
        return instantiate(node, "logger", expect=Logger, version=f"{trial['key']}/{stage}")
    import wandb

    return instantiate(
        node,
        "logger",
        expect=Logger,
        id=trial["key"],
        name=trial["row"],
        group=trial["sweep"],
        tags=list(trial["tags"]),
        prefix=stage,
        resume="allow",
        reinit="finish_previous",
        settings=wandb.Settings(init_timeout=WANDB_INIT_TIMEOUT_S, silent=True),
    )


def log_curves(node: Mapping[str, Any], trial: Mapping[str, Any], stage: str, metrics: Path) -> None:
    """Copy a stage's ``metrics.jsonl`` to the loggers."""
    with open_loggers(node, trial, stage) as loggers:
        for line in metrics.read_text().splitlines():
            values = json.loads(line)
            step = values.pop("step")
            for logger in loggers:
                logger.log_metrics(values, step)


def log_result(node: Mapping[str, Any], trial: Mapping[str, Any], stage: str, result: Path) -> None:
    """Log the scores of a ``result.json``."""
    metrics = json.loads(result.read_text())["metrics"]
    with open_loggers(node, trial, stage) as loggers:
        for logger in loggers:
            logger.log_metrics(metrics, 0)


def close(loggers: Sequence[Any], status: str) -> None:
    """Finish each logger's run; W&B shows a failed one as failed."""
    for logger in loggers:
        logger.finalize(status)
        if type(logger).__name__ == "WandbLogger":
            logger.experiment.finish(exit_code=0 if status == "success" else 1)
