"""``mmexp eval RUN_DIR benchmark=[...]``: a finished run on further benchmarks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmexp.config import Composer
from mmexp.errors import UserError
from mmexp.front import read_arguments

HELP = """\
mmexp eval RUN_DIR benchmark=[pope,mme] [key=value ...]

RUN_DIR is the folder of a finished run (under paths.runs); its own result stays as it is.
"""


def main(arguments: Sequence[str]) -> int:
    found = read_arguments(arguments, max_names=1)
    if "--help" in found.flags:
        print(HELP, end="")
        return 0
    if not found.names:
        raise UserError("which run? mmexp eval RUN_DIR benchmark=[...]")
    from mmexp.evaluation.stage import evaluate_run
    from mmexp.recipe.store import Store
    from mmexp.run import show_result

    config = run_config(Path(found.names[0]))
    with Composer(config["scale"]).open() as composer:
        chosen = composer.compose(found.overrides).resolved()
    store = Store.from_config(config)
    result = evaluate_run(Path(found.names[0]), chosen["benchmarks"], store.find, {})
    show_result(Path(result["folder"]))
    return 0


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
