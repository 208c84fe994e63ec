"""Hydra's own application, for its flags that show something (``--cfg job``, ``--info``)."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mmexp.cli.arguments import Arguments
from mmexp.config import config_root, register_resolvers
from mmexp.config.composition import check_overrides
from mmexp.config.folders import searching
from mmexp.config.hydra_session import VERSION_BASE
from mmexp.config.mistakes import user_errors


def show(found: Arguments) -> None:
    """Let Hydra show what its flags ask for. Raises ``UserError``: anything wrong in the configs."""
    import hydra

    def task(config: Any) -> None:
        """Nothing is run."""

    overrides = found.of_sweep
    check_overrides(overrides)
    register_resolvers()
    application = hydra.main(
        config_path=str(config_root() / "conf"), config_name=found.scale, version_base=VERSION_BASE
    )
    with searching(found.scale), user_errors(overrides, found.scale), _hydra_process([*found.hydra, *overrides]):
        application(task)()


@contextmanager
def _hydra_process(arguments: Sequence[str]) -> Iterator[None]:
    """Hydra reads ``sys.argv``, and prints errors itself unless it is asked for full ones."""
    before, error_mode = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["mmexp", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = before
        if error_mode is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = error_mode
