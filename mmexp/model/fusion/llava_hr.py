"""Mixture-of-resolution adapter: the other experts' maps are added between the blocks of the first (LLaVA-HR).

arXiv 2403.03003 and its code (section 4.2 of Eagle's fact sheet); computes the same as the released modules from the
same weights. Deliberate differences: 1 x 1 convolutions are linear layers, a coarser map is brought up to any grid, and
the class token of the first expert stays (the original drops it before the first block). With more than two experts
each has adapters of its own, which run one after the other (ours: the original has two).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from mmexp.errors import UserError
from mmexp.interfaces import FeatureMap, FeatureShape, Grid, Inject
from mmexp.model.fusion.base import BaseFusion
from mmexp.model.fusion.checks import describe, first_and_others, require_at_least, require_grid
from mmexp.model.fusion.common_grid import bilinear
from mmexp.model.maps import to_map, to_tokens


class LlavaHr(BaseFusion):
    """One stream of the first expert's shape.

    Args:
        num_adapters: the first expert's blocks, up to the deepest that feature_layers reads, are cut into
            ``num_adapters + 1`` groups with an adapter between each two; 0 leaves the final sum alone (LLaVA-HR with
            frozen encoders).
        shapes, tap_shapes, deepest: build-time facts; the last is the deepest block that feature_layers reads.

    Raises:
        UserError: one expert only; maps that do not fit; more adapters than there are places.
    """

    def __init__(
        self,
        *,
        num_adapters: int,
        shapes: Mapping[str, FeatureShape],
        tap_shapes: Mapping[str, Sequence[FeatureShape]],
        deepest: Mapping[str, int],
    ) -> None:
        super().__init__(shapes=shapes, tap_shapes=tap_shapes)
        self.low, self.high = first_and_others(shapes, "llava_hr")
        self.places = adapter_places(num_adapters, deepest[self.low], self.low)
        hosts = [tap_shapes[self.low][place] for place in self.places]
        for name in self.high:
            for host in (*hosts, shapes[self.low]):
                require_fit(name, shapes[name], self.low, host)
        # Any: torch types the values of its containers as bare modules
        self.adapters: Any = nn.ModuleDict(
            {name: nn.ModuleList(Adapter(host, shapes[name]) for host in hosts) for name in self.high}
        )
        self.low_proj = nn.Linear(shapes[self.low].dim, shapes[self.low].dim)
        self.high_proj = nn.ModuleDict({name: nn.Linear(shapes[name].dim, shapes[self.low].dim) for name in self.high})
        self.streams = [shapes[self.low]]

    def run_order(self) -> list[str]:
        return [*self.high, self.low]

    def inject(self, name: str, done: Mapping[str, list[FeatureMap]]) -> Mapping[int, Inject] | None:
        if name != self.low:
            return None

        def adapt(number: int) -> Inject:
            def run(tokens: torch.Tensor) -> torch.Tensor:
                for other in self.high:
                    tokens = self.adapters[other][number](tokens, done[other][0])
                return tokens

            return run

        return {place: adapt(number) for number, place in enumerate(self.places)}

    def forward(self, maps: Mapping[str, list[FeatureMap]]) -> list[FeatureMap]:
        low = maps[self.low][0]
        grid = require_grid(self.low, self.shapes[self.low], "llava_hr")
        tokens = self.low_proj(low.tokens)
        for name in self.high:
            tokens = tokens + self.high_proj[name](fit(maps[name][0].tokens, self.shapes[name], grid))
        return [FeatureMap(tokens, grid)]


class Adapter(nn.Module):
    """``low += tanh(gate) * high`` after a depthwise residual on ``low``; starts as identity.

    Args:
        low: shape of the tokens that are changed.
        high: shape of the map that is added.
    """

    def __init__(self, low: FeatureShape, high: FeatureShape) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.grid = require_grid("the first expert", low, "llava_hr")
        self.high_in = nn.Linear(high.dim, high.dim)
        self.high_out = nn.Linear(high.dim, low.dim)
        self.low_conv = nn.Conv2d(low.dim, low.dim, 7, padding=3, groups=low.dim)
        self.low_out = nn.Linear(low.dim, low.dim)
        self.gate = nn.Sequential(nn.Linear(2 * low.dim, low.dim // 2), nn.GELU(), nn.Linear(low.dim // 2, 1))
        for inner in (self.high_in, self.low_conv):
            nn.init.xavier_uniform_(inner.weight)
        for outer in (self.high_out, self.low_out):
            nn.init.zeros_(outer.weight)
        for layer in (self.high_in, self.high_out, self.low_conv, self.low_out):
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, tokens: torch.Tensor, features: FeatureMap) -> torch.Tensor:
        """(W, N, D_low), (W, N_high, D_high) -> (W, N, D_low)."""
        high = self.high_out(functional.gelu(self.high_in(features.tokens)))
        high = fit(high, self.high, self.grid)
        local = to_tokens(self.low_conv(to_map(tokens, self.grid)))
        tokens = tokens + self.low_out(functional.gelu(local))
        gate = self.gate(torch.cat([tokens, high], dim=-1).mean(dim=1, keepdim=True))
        result: torch.Tensor = tokens + gate.tanh() * high
        return result


def adapter_places(num_adapters: int, num_blocks: int, name: str) -> list[int]:
    """Blocks after which the adapters are inserted: groups of equal size, as far as the number of blocks allows.

    Raises:
        UserError: more adapters than places between the blocks.
    """
    require_at_least("num_adapters", num_adapters, 0)
    if num_adapters and num_adapters >= num_blocks:
        raise UserError(
            f"fusion.num_adapters: {num_adapters}; feature_layers reads {num_blocks} blocks of '{name}', "
            f"so at most {max(num_blocks - 1, 0)} fit between them"
        )
    return [num_blocks * number // (num_adapters + 1) for number in range(1, num_adapters + 1)]


def require_fit(name: str, shape: FeatureShape, low: str, host: FeatureShape) -> None:
    """Raises ``UserError`` unless the map can be brought up, or averaged in whole blocks, to the host's grid."""
    rows, columns = require_grid(low, host, "llava_hr")
    own = require_grid(name, shape, "llava_hr")
    if own[0] <= rows and own[1] <= columns:
        return
    if own[0] % rows or own[1] % columns:
        raise UserError(
            f"fusion=llava_hr: '{name}' ({describe(shape)}) cannot be averaged in whole blocks to the grid of '{low}' "
            f"({describe(host)}); choose an image_size that makes it a multiple"
        )


def fit(tokens: torch.Tensor, shape: FeatureShape, grid: Grid) -> torch.Tensor:
    """(W, N, D) on the grid of ``shape`` -> (W, rows * columns, D): bilinear up, average down."""
    assert shape.grid is not None
    if shape.grid == grid:
        return tokens
    pixels = to_map(tokens, shape.grid)
    if shape.grid[0] <= grid[0] and shape.grid[1] <= grid[1]:
        return to_tokens(bilinear(pixels, grid, align_corners=True))
    return to_tokens(functional.avg_pool2d(pixels, (shape.grid[0] // grid[0], shape.grid[1] // grid[1])))
