"""Rows of a sweep that are known before anything is run, and the test that each scale's file asks of them."""

from rich.console import Console

from mmexp.config import Composer
from mmexp.planning.validate import validate
from mmexp.stages.graph import build_graph
from mmexp.sweeping.search.round_robin import RoundRobin
from mmexp.sweeping.session import strategy_of
from mmexp.sweeping.spec.sweep import Sweep
from mmexp.sweeping.spec.table import rows_of


def check_rows(composer: Composer, sweep: str) -> None:
    """All rows compose, build, and are different trials."""
    keys = {}
    for name, overrides in sweep_rows(composer, sweep).items():
        config = composer.compose([f"sweeps={sweep}", *overrides]).resolved()
        validate(config)
        keys[name] = build_graph(config).key
    assert len(set(keys.values())) == len(keys), (composer.scale, sweep, keys)


def sweep_rows(composer: Composer, sweep: str) -> dict[str, list[str]]:
    """Row -> overrides; of a greedy search the sets of the first round and the largest one."""
    opened = Sweep(composer, [f"sweeps={sweep}"], lambda config: None, Console(stderr=True))
    strategy = strategy_of(opened)
    if isinstance(strategy, RoundRobin):
        sets = [*strategy.sets.first(), (*strategy.sets.base, *strategy.sets.candidates)]
        return {strategy.sets.name(members): strategy.sets.overrides_of(members) for members in sets}
    return rows_of(opened.node, blind=False)
