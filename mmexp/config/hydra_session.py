"""Hydra, initialised for one scale: search path and resolvers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from mmexp.config.folders import config_root, searching

if TYPE_CHECKING:
    from omegaconf import DictConfig

VERSION_BASE = "1.3"


@contextmanager
def hydra_open(scale: str) -> Iterator[None]:
    """Hydra is initialised while open; a Hydra application around it gets its own state back."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    register_resolvers()
    around = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with searching(scale), initialize_config_dir(str(config_root() / "conf"), version_base=VERSION_BASE):
            loader: Any = GlobalHydra.instance().config_loader()
            loader.repository = _ReadOnce(loader.repository)
            yield
    finally:
        GlobalHydra.instance().hydra = around


class _ReadOnce:
    """Hydra's repository of config files, each read and parsed once for all compositions of a session.

    Parsing YAML is a third of a composition. Hydra copies its repository for each composition and merges what it gets
    in place, so a copy is the same repository, and each composition gets copies of the files.
    """

    def __init__(self, repository: Any) -> None:
        self._repository = repository
        self._loaded: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._repository, name)

    def __deepcopy__(self, memo: Any) -> "_ReadOnce":
        return self

    def load_config(self, config_path: str) -> Any:
        if config_path not in self._loaded:
            self._loaded[config_path] = self._repository.load_config(config_path)
        return deepcopy(self._loaded[config_path])


def register_resolvers() -> None:
    """``${mmexp.root:}``: the shipped configs. ``${mmexp.wandb_offline:}``: true unless W&B has a key.
    ``${mmexp.part:0.1,${steps}}``: a tenth of the steps, at least one.
    ``${mmexp.with_resolution:${model},${resolution}}``: a model whose encoders all see images through that resolution.
    """
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("mmexp.with_resolution", _with_resolution, replace=True)
    OmegaConf.register_new_resolver("mmexp.part", lambda part, steps: max(1, round(part * steps)), replace=True)
    OmegaConf.register_new_resolver("mmexp.root", lambda: str(config_root()), replace=True)
    OmegaConf.register_new_resolver("mmexp.wandb_offline", lambda: not os.environ.get("WANDB_API_KEY"), replace=True)


def _with_resolution(model: "DictConfig", resolution: "DictConfig") -> dict[str, Any]:
    from omegaconf import OmegaConf

    node: Any = OmegaConf.to_container(model, resolve=True)
    for encoder in node.get("encoders", {}).values():
        encoder["resolution"] = OmegaConf.to_container(resolution, resolve=True)
    return node
