"""Hydra, initialised for one scale: search path and resolvers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
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

    from mmexp.config.quick_composition import quick_composition

    register_resolvers()
    around = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with searching(scale), initialize_config_dir(str(config_root() / "conf"), version_base=VERSION_BASE):
            with quick_composition(GlobalHydra.instance().config_loader()):
                yield
    finally:
        GlobalHydra.instance().hydra = around


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
