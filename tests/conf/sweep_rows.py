"""Rows of a sweep that are known before anything is run, and the test that each scale's file asks of them."""

from typing import Any

from mmexp.config import Composer
from mmexp.planning.validate import validate
from mmexp.stages.graph import build_graph
from mmexp.sweeping.search.selection import read_settings
from mmexp.sweeping.spec.axes import accumulated


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
    node: Any = composer.compose([f"sweeps={sweep}"]).resolved()["sweep"]
    if (node.get("search") or {}).get("kind") == "round_robin":
        settings = read_settings(node, node["seeds"])
        sets = [*settings.first(), (*settings.base, *settings.candidates)]
        return {settings.name(members): list(settings.overrides_of(members)) for members in sets}
    rows = {name: row.get("overrides") or [] for name, row in node["rows"].items()}
    return accumulated(rows) if node.get("cumulative") else rows
