"""Fusions of small maps, built from the shipped YAML."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from mmexp.instantiate import instantiate
from mmexp.interfaces import FeatureMap, FeatureShape, Grid

CONF = Path(__file__).parents[3] / "conf" / "fusion"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
SEVERAL = [name for name in NAMES if name != "none"]
DEPTH = 8

Experts = dict[str, tuple[int, Grid | None]]
"""Name -> width and grid; None for a map without rows and columns."""
TWO: Experts = {"low": (16, (4, 4)), "high": (24, (8, 8))}
THREE: Experts = {**TWO, "third": (10, (4, 4))}


def shape(dim: int, grid: Grid | None) -> FeatureShape:
    return FeatureShape(20 if grid is None else grid[0] * grid[1], dim, grid)


def node(name: str, **changes: Any) -> dict[str, Any]:
    """The config node of an option."""
    loaded: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    return {**loaded, **changes}


def build(name: str, experts: Experts = TWO, *, tap_shapes: dict | None = None, **changes: Any) -> Any:
    """A fusion of plain experts of ``DEPTH`` blocks (``tap_shapes`` replaces those of hierarchical ones)."""
    shapes = {expert: shape(*facts) for expert, facts in experts.items()}
    taps = {expert: [own] * (DEPTH + 1) for expert, own in shapes.items()} | (tap_shapes or {})
    deepest = {expert: len(all_taps) - 1 for expert, all_taps in taps.items()}
    return instantiate(node(name, **changes), "fusion", shapes=shapes, tap_shapes=taps, deepest=deepest)


def maps(experts: Experts = TWO, views: int = 2, seed: int = 0) -> dict[str, list[FeatureMap]]:
    """Random selected maps."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for expert, (dim, grid) in experts.items():
        count = shape(dim, grid).num_tokens
        made[expert] = [FeatureMap(torch.randn(views, count, dim, generator=generator), grid)]
    return made


def roughened(module: torch.nn.Module) -> torch.nn.Module:
    """Noise on every parameter: none is zero, so that a missing gradient is a missing connection."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return module


def moved(fusion: Any, features: dict[str, list[FeatureMap]], expert: str, token: int) -> torch.Tensor:
    """Which tokens of the first stream change when one token of an expert changes: (N,) bool."""
    with torch.no_grad():
        before = fusion(features)[0].tokens
        tokens = features[expert][0].tokens.clone()
        tokens[:, token] += torch.linspace(1, 3, tokens.shape[-1])
        after = fusion({**features, expert: [FeatureMap(tokens, features[expert][0].grid), *features[expert][1:]]})
    return (after[0].tokens - before).abs().amax(dim=(0, 2)) > 1e-6
