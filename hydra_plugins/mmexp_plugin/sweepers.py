"""``hydra/sweeper=table``: mmexp's engine as a Hydra sweeper."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper

# No `from __future__ import annotations` here, see launchers.py.


class TableSweeper(Sweeper):
    """Rows x axes x seeds of the config node ``sweep``, and comma overrides."""

    def __init__(self, dry_run: bool, retry_failed: bool) -> None:
        self.dry_run, self.retry_failed = dry_run, retry_failed

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        from hydra.core.plugins import Plugins

        from mmexp.errors import UserError

        self.config = config
        target = str(config.hydra.launcher._target_)
        if not target.startswith("hydra_plugins.mmexp_plugin."):
            raise UserError(f"hydra/launcher: {target} cannot run frozen stages; there is: inline, local")
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from mmexp.report.show import show_report
        from mmexp.sweeping.table import sweep_table

        launcher: Any = self.launcher
        return sweep_table(
            scale=str(self.config.hydra.job.config_name),
            arguments=arguments,
            launcher=launcher.open(),
            dry_run=self.dry_run,
            retry_failed=self.retry_failed,
            report=show_report,
        )


@dataclass
class TableConf:
    """``dry_run`` shows what would be run; ``retry_failed`` runs again what failed in an earlier try."""

    _target_: str = "hydra_plugins.mmexp_plugin.sweepers.TableSweeper"
    dry_run: bool = False
    retry_failed: bool = False


ConfigStore.instance().store(group="hydra/sweeper", name="table", node=TableConf, provider="mmexp")
