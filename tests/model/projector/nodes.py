"""Every option of the config group ``projector``, composed without Hydra, and small projectors built from it."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from mmexp.instantiate import instantiate
from mmexp.interfaces import FeatureMap, Grid

CONF = Path(__file__).parents[3] / "conf" / "projector"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
IN_DIM, OUT_DIM, GRID = 32, 48, (6, 6)
SIZES = {"few": 9, "all": 36}
FRAME = {"prenorm": False, "pos_emb": False, "num_eos_tokens": 0, "init_std": None, "gradient_checkpointing": False}


def node(name: str, **changes: Any) -> dict[str, Any]:
    """The config node of an option, with ``${sizes.*}`` of this file."""
    return (
        OmegaConf.to_container(OmegaConf.create({"sizes": SIZES, "node": _load(name)}), resolve=True)["node"] | changes
    )


def build(name: str, *, in_dim: int = IN_DIM, grid: Grid | None = GRID, in_tokens: int = 0, **changes: Any) -> Any:
    """A projector of the option for features of ``grid`` (or ``in_tokens`` without one)."""
    facts = {"in_dim": in_dim, "in_tokens": in_tokens or grid[0] * grid[1], "in_grid": grid, "out_dim": OUT_DIM}
    return instantiate(node(name, **changes), "projector", **facts)


def features(views: int = 2, *, grid: Grid = GRID, seed: int = 0, dtype: torch.dtype = torch.float32) -> FeatureMap:
    generator = torch.Generator().manual_seed(seed)
    return FeatureMap(torch.randn(views, grid[0] * grid[1], IN_DIM, generator=generator).to(dtype), grid)


def roughened(projector: torch.nn.Module) -> torch.nn.Module:
    """Noise on every parameter: none is zero, so that a missing gradient is a missing connection."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in projector.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return projector


def _load(name: str) -> DictConfig:
    own = OmegaConf.load(CONF / f"{name}.yaml")
    assert isinstance(own, DictConfig)
    bases = [base for base in own.pop("defaults", []) if base != "_self_"]
    merged = OmegaConf.merge(*[_load(base) for base in bases], own)
    assert isinstance(merged, DictConfig)
    return merged
