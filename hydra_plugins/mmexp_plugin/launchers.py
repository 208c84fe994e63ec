"""``hydra/launcher=local|inline``: names and settings of mmexp's own launchers."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher

# No `from __future__ import annotations` here: Hydra executes plugin modules before they are in sys.modules,
# and dataclasses then fail.


class MmexpLauncher(Launcher):
    """Hydra hands over overrides one batch at a time; mmexp's engine launches frozen stages instead."""

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        pass

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        from mmexp.errors import UserError

        raise UserError("hydra/sweeper: mmexp's launchers work with mmexp's sweepers; leave hydra/sweeper out")


class LocalLauncher(MmexpLauncher):
    """Worker processes on this machine."""

    def __init__(self, n_jobs: int, timeout_s: float | None, fork: bool) -> None:
        self.n_jobs, self.timeout_s, self.fork = n_jobs, timeout_s, fork

    def open(self) -> Any:
        """The engine's launcher."""
        from mmexp.sweeping.workers.local import LocalLauncher as Local

        return Local(n_jobs=self.n_jobs, timeout_s=self.timeout_s, fork=self.fork)


class InlineLauncher(MmexpLauncher):
    """This process, one after the other: for debugging."""

    def open(self) -> Any:
        """The engine's launcher."""
        from mmexp.sweeping.workers.inline import InlineLauncher as Inline

        return Inline()


@dataclass
class LocalConf:
    """``n_jobs`` workers at a time, each with its share of the GPUs; ``timeout_s`` for each stage.

    ``fork``: workers come from a process that has imported everything; for Linux.
    """

    _target_: str = "hydra_plugins.mmexp_plugin.launchers.LocalLauncher"
    n_jobs: int = 2
    timeout_s: float | None = None
    fork: bool = sys.platform == "linux"


@dataclass
class InlineConf:
    _target_: str = "hydra_plugins.mmexp_plugin.launchers.InlineLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="local", node=LocalConf, provider="mmexp")
ConfigStore.instance().store(group="hydra/launcher", name="inline", node=InlineConf, provider="mmexp")
