"""``mmexp eval RUN_DIR benchmark=[...]``: a finished run on further benchmarks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmexp.cli.arguments import read_arguments
from mmexp.config import Composer
from mmexp.errors import UserError

HELP = """\
mmexp eval RUN_DIR benchmark=[pope,mme] [key=value ...]

RUN_DIR is the folder of a finished run (under paths.runs); its own result stays as it is.
Videos: benchmark=[lab_video] (scale lab) or [video], with video=concat, max_pool or mean and video.frames=8.
"""


def main(arguments: Sequence[str]) -> int:
    found = read_arguments(arguments, max_names=1)
    if "--help" in found.flags:
        print(HELP, end="")
        return 0
    if not found.names:
        raise UserError("which run? mmexp eval RUN_DIR benchmark=[...]")
    from mmexp.cli.run import show_result
    from mmexp.stages.further import evaluate_run
    from mmexp.stages.store import Store

    config = run_config(Path(found.names[0]))
    with Composer(config["scale"]).open() as composer:
        chosen = composer.compose(found.overrides).resolved()
    store = Store.from_config(config)
    further = further_stages(config, chosen, store)
    result = evaluate_run(Path(found.names[0]), chosen["benchmarks"], store.find, {}, further)
    show_result(Path(result["folder"]))
    return 0


def further_stages(run: Mapping[str, Any], chosen: Mapping[str, Any], store: Any) -> dict[str, str]:
    """Name -> key of the lab's stages that benchmarks need and the run was not made from; the missing are made.

    Their nodes are those of the run's config, so that they fit its world; a stage that it does not know is taken from
    the config of today.

    Raises:
        UserError: a benchmark names a stage that is in neither.
    """
    from mmexp.stages.graph import build_graph, references
    from mmexp.stages.run import run_stage

    known = build_graph(run).keys
    stages = {**((chosen.get("lab") or {}).get("stages") or {}), **((run.get("lab") or {}).get("stages") or {})}
    config = {**run, "lab": {**(run.get("lab") or {}), "stages": stages}}
    keys: dict[str, str] = {}
    for name in dict.fromkeys(name for name, _ in references(chosen["benchmarks"], "benchmarks")):
        if name not in known:
            graph = build_graph(config, name)
            for spec in graph.stages.values():
                run_stage(spec, store, None)
            keys |= graph.keys
    return keys


def run_config(folder: Path) -> dict[str, Any]:
    """The frozen config of a run. Raises ``UserError`` where there is none."""
    import yaml

    path = folder / "config.yaml"
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{path}: no such file; RUN_DIR is the folder of a finished run") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
