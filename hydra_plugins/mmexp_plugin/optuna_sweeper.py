"""``hydra/sweeper=optuna``: a search by Optuna as a Hydra sweeper; ``sweep.search`` says what is searched."""

from dataclasses import dataclass

from hydra.core.config_store import ConfigStore

from hydra_plugins.mmexp_plugin.sweepers import MmexpSweeper, TableConf

# No `from __future__ import annotations` here, see launchers.py.


class OptunaSweeper(MmexpSweeper):
    """Ask and tell over the search space of ``sweep.search`` and of the command line."""

    kind = "optuna"


@dataclass
class OptunaConf(TableConf):
    _target_: str = "hydra_plugins.mmexp_plugin.optuna_sweeper.OptunaSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaConf, provider="mmexp")
