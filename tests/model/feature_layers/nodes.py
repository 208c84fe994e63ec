"""Every option of the config group ``feature_layers``, composed without Hydra, on encoders of several depths."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from mmexp.instantiate import instantiate
from mmexp.interfaces import FeatureMap, FeatureShape

CONF = Path(__file__).parents[3] / "conf" / "feature_layers"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
DIM, GRID = 12, (5, 5)
"""25 tokens: no multiple of STI's stride."""
DEPTHS = (4, 6, 24, 27)
FROM_DEPTH = {"sti_official": 24, "sci_official": 24, "dci_official": 24, "dci_official_siglip": 27}
"""Options whose layer numbers are of one encoder; all others are for any depth."""
CASES = [(name, depth) for name in NAMES for depth in DEPTHS if depth >= FROM_DEPTH.get(name, 0)]


def node(name: str, **changes: Any) -> dict[str, Any]:
    """The config node of an option."""
    container: Any = OmegaConf.to_container(_load(name), resolve=True)
    return container | changes


def vit_shapes(depth: int) -> list[FeatureShape]:
    return [FeatureShape(GRID[0] * GRID[1], DIM, GRID)] * (depth + 1)


def convnext_shapes() -> list[FeatureShape]:
    """Stem and four stages: sides 16, 16, 8, 4, 2."""
    sides_and_widths = ((16, 8), (16, 8), (8, 16), (4, 24), (2, 32))
    return [FeatureShape(side * side, width, (side, side)) for side, width in sides_and_widths]


def build(name: str, shapes: list[FeatureShape] | None = None, depth: int = 27, **changes: Any) -> Any:
    shapes = shapes or vit_shapes(depth)
    return instantiate(node(name, **changes), "feature_layers", depth=len(shapes) - 1, shapes=shapes)


def maps_of(
    layers: Any, shapes: list[FeatureShape], views: int = 2, dtype: torch.dtype = torch.float32
) -> list[FeatureMap]:
    """What an encoder of these shapes hands over: random maps, one per depth, means for groups."""
    generator = torch.Generator().manual_seed(0)
    states = [
        FeatureMap(torch.randn(views, shape.num_tokens, shape.dim, generator=generator).to(dtype), shape.grid)
        for shape in shapes
    ]
    return select(layers.taps, states)


def select(taps: tuple[int | tuple[int, ...], ...], states: list[FeatureMap]) -> list[FeatureMap]:
    """The maps of ``taps`` among the maps of all depths."""
    maps = []
    for tap in taps:
        members = [states[depth] for depth in (tap if isinstance(tap, tuple) else (tap,))]
        maps.append(FeatureMap(torch.stack([part.tokens for part in members]).mean(0), members[0].grid))
    return maps


def _load(name: str) -> DictConfig:
    own = OmegaConf.load(CONF / f"{name}.yaml")
    assert isinstance(own, DictConfig)
    bases = [base for base in own.pop("defaults", []) if base != "_self_"]
    merged = OmegaConf.merge(*[_load(base) for base in bases], own)
    assert isinstance(merged, DictConfig)
    return merged
