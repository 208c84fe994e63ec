"""Mirrors of a run for people: Lightning loggers by config. The run directory stays the truth."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmexp.instantiate import instantiate

WANDB = "lightning.pytorch.loggers.WandbLogger"


@contextmanager
def open_loggers(node: Mapping[str, Any], trial: Mapping[str, Any] | None, job_type: str) -> Iterator[list[Any]]:
    """The loggers of the group ``logger``, closed with the right status.

    Args:
        node: ``{"loggers": {name: {_target_, ...}}}``.
        trial: ``key``, ``sweep``, ``row``, ``tags`` and ``config`` of the trial that this work belongs to; None logs
            nothing (a stage made for its own sake belongs to no trial).
        job_type: stage name, which becomes the prefix of the curves.
    """
    loggers = [make_logger(dict(logger), trial, job_type) for logger in node["loggers"].values()] if trial else []
    try:
        if trial:
            for logger in loggers:
                logger.log_hyperparams(dict(trial["config"]))
        yield loggers
    except BaseException:
        close(loggers, "failed")
        raise
    close(loggers, "success")


def make_logger(node: dict[str, Any], trial: Mapping[str, Any], job_type: str) -> Any:
    """One logger for one trial: folder or W&B run named by the trial, curves prefixed by the stage."""
    Path(node["save_dir"]).mkdir(parents=True, exist_ok=True)
    if node["_target_"] != WANDB:
        return instantiate(node, "logger", version=f"{trial['key']}/{job_type}")
    facts = {"id": trial["key"], "name": trial["row"], "group": trial["sweep"], "tags": list(trial["tags"])}
    return instantiate(node, "logger", **facts, prefix=job_type, resume="allow", reinit="finish_previous")


def close(loggers: Sequence[Any], status: str) -> None:
    """Finish each logger's run; W&B shows a failed one as failed."""
    for logger in loggers:
        logger.finalize(status)
        if type(logger).__name__ == "WandbLogger":
            logger.experiment.finish(exit_code=0 if status == "success" else 1)
