"""``hydra/sweeper=table|round_robin``: mmexp's engine as Hydra sweepers."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper

# No `from __future__ import annotations` here, see launchers.py.


class MmexpSweeper(Sweeper):
    """A kind of sweep; ``sweep.search.kind`` in a sweep's file chooses another than table.

    ``dry_run`` shows what would be run; ``retry_failed`` runs again what failed in an earlier try.
    """

    kind: str

    def __init__(self, dry_run: bool, retry_failed: bool) -> None:
        self.dry_run, self.retry_failed = dry_run, retry_failed

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        from hydra.core.plugins import Plugins

        from mmexp.errors import UserError

        self.config = config
        target = str(config.hydra.launcher._target_)
        if not target.startswith("hydra_plugins.mmexp_plugin."):
            raise UserError(f"hydra/launcher: {target} cannot run frozen stages; choose from: inline, local")
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from mmexp.report.show import show_report
        from mmexp.sweeping.search.kinds import run_sweep
        from mmexp.sweeping.session import Order

        launcher: Any = self.launcher
        config: Any = self.config
        order = Order(
            scale=str(config.hydra.job.config_name),
            arguments=arguments,
            launcher=launcher.open(),
            dry_run=self.dry_run,
            retry_failed=self.retry_failed,
            report=show_report,
        )
        return run_sweep(order, self.kind)


class TableSweeper(MmexpSweeper):
    """Rows x axes x seeds of the config node ``sweep``, and comma overrides."""

    kind = "table"


class RoundRobinSweeper(MmexpSweeper):
    """Forward selection over a list, as ``sweep.search`` says."""

    kind = "round_robin"


@dataclass
class TableConf:
    _target_: str = "hydra_plugins.mmexp_plugin.sweepers.TableSweeper"
    dry_run: bool = False
    retry_failed: bool = False


@dataclass
class RoundRobinConf(TableConf):
    _target_: str = "hydra_plugins.mmexp_plugin.sweepers.RoundRobinSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="table", node=TableConf, provider="mmexp")
ConfigStore.instance().store(group="hydra/sweeper", name="round_robin", node=RoundRobinConf, provider="mmexp")
