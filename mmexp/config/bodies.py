"""Typos in the body of an experiment or a sweep: Hydra merges any key, so the baseline would run under a new name.

A body may only set keys that exist without it, once its options are chosen. New names are allowed where names are
free, as in a mapping of datasets.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mmexp.config.folders import options
from mmexp.errors import UserError, nearest

GROUPS = ("experiments", "sweeps")
NOT_CHECKED = ("defaults", "sweep", "hydra")
OPEN = ("aggregates", "metrics", "sizes", "benchmarks", "datasets", "trainable", "lr", "loggers", "stages", "params")
"""Mappings whose keys are names, patterns or another library's arguments."""


def check_bodies(scale: str, choices: Mapping[str, Any]) -> None:
    """Check the chosen experiment and sweep; Hydra must be open.

    Raises:
        UserError: a key that exists only in the body.
    """
    for group in GROUPS:
        if choices.get(group):
            _check_body(scale, group, str(choices[group]), Path.cwd())


@cache
def _check_body(scale: str, group: str, option: str, folder: Path) -> None:
    import hydra
    import yaml
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    path = options(group, scale)[option]
    body = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(body, dict):
        return
    try:
        without: Any = OmegaConf.to_container(hydra.compose(scale, list(_chosen(body, group))), resolve=False)
    except HydraException:  # its options do not compose by themselves, so there is nothing to compare with
        return
    for key, value in body.items():
        if key not in NOT_CHECKED and key in without:
            _compare(value, without[key], str(key), path)


def _chosen(body: Mapping[str, Any], group: str) -> Iterator[str]:
    """The options that a file's defaults choose, as overrides."""
    for entry in body.get("defaults") or []:
        if isinstance(entry, str) and entry != "_self_":
            yield f"{group}={entry}"
        for key, value in entry.items() if isinstance(entry, Mapping) else ():
            name = str(key).removeprefix("override ").lstrip("/")
            yield f"{name}=[{','.join(map(str, value))}]" if isinstance(value, list) else f"{name}={value}"


def _compare(value: Any, there: Any, key: str, path: Path) -> None:
    if not (isinstance(value, Mapping) and isinstance(there, Mapping)) or key.rpartition(".")[2] in OPEN:
        return
    for name, item in value.items():
        if name not in there:
            raise UserError(f"{path}: {key}.{name}: no such key; {nearest(str(name), map(str, there))}")
        _compare(item, there[name], f"{key}.{name}", path)
