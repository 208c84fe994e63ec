"""A finished run on further benchmarks."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmexp.errors import UserError, nearest
from mmexp.evaluation.result import read_result
from mmexp.evaluation.stage import EvaluateStage
from mmexp.files import CONFIG_FILE
from mmexp.stages.graph import replace_references


def evaluate_run(
    run_dir: Path,
    benchmarks: Mapping[str, Any],
    find: Callable[[str], Path | None],
    runtime: Mapping[str, Any],
    further: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Evaluate a finished run on further benchmarks: ``mmexp eval RUN_DIR benchmark=[pope,mme]``.

    The run's ``config.yaml`` says everything but the benchmarks; the result is written to
    ``<run_dir>/evaluations/<benchmark names>/`` and the run's own result stays as it is. The name of a benchmark of
    videos has its aggregation and frames behind it.

    Args:
        benchmarks: name -> config node of a ``Benchmark``, composed by the caller.
        find: key of a stage -> its finished folder, or None (``Store.find``).
        runtime: replaces entries of the run's own ``evaluation.runtime``.
        further: keys of finished stages that only the benchmarks need, by name.

    Returns:
        The result, with ``folder``: where it is.

    Raises:
        UserError: not the folder of a finished run, a stage that is no longer in the store.
    """
    from omegaconf import OmegaConf

    path = run_dir / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"{path}: no such file; RUN_DIR is a folder under paths.runs")
    config: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    node = {**config["evaluation"], "benchmarks": dict(benchmarks)}
    keys = read_result(run_dir)["stage_keys"]
    facts = {"stage_keys": keys, **(node.pop("runtime", None) or {}), **runtime}
    node.pop("_target_", None)
    made = {**(further or {}), **keys}
    stage = EvaluateStage(**replace_references(node, lambda name, sub: f"{_finished(name, made, find)}{sub}"))
    folder = run_dir / "evaluations" / "+".join(part.label(name) for name, part in stage.benchmarks.items())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        stage.run(folder, facts)
    except UserError:
        with suppress(OSError):  # it holds an earlier result
            folder.rmdir()
        raise
    return {**read_result(folder), "folder": str(folder)}


def _finished(name: str, keys: Mapping[str, str], find: Callable[[str], Path | None]) -> Path:
    if name not in keys:
        raise UserError(f"stage:{name}: the run was not made from such a stage; {nearest(name, keys)}")
    folder = find(keys[name])
    if folder is None:
        raise UserError(f"stage '{name}' ({keys[name]}) is no longer in the store; run the experiment again")
    return folder
