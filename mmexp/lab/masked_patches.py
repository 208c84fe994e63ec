"""Self-supervised pre-training without labels: the pixels of patches that were taken out."""

import torch
from torch import nn
from torch.nn import functional

from mmexp.interfaces import FeatureShape
from mmexp.lab.drawn import Drawn
from mmexp.lab.objective import Look, Objective
from mmexp.lab.rng import Rng


class MaskedPatches(Objective):
    """Mean squared error of the missing patches' pixels (SimMIM, arXiv:2111.09886: a linear head, masked input).

    Stands in for DINOv2's self-distillation, which a budget of minutes does not reach.

    Args:
        masked_percent: share of patches that are taken out, 1..99.
        shape: of the encoder's deepest tap; a fact of the network.
        image_size: side of the encoder's input; a fact of the network.
    """

    def __init__(self, *, masked_percent: int, shape: FeatureShape, image_size: int) -> None:
        super().__init__()
        assert shape.grid is not None
        self.masked_percent, self.grid, self.patch = masked_percent, shape.grid, image_size // shape.grid[0]
        self.pixels = nn.Linear(shape.dim, 3 * self.patch**2)

    def loss(self, look: Look, drawn: Drawn, rng: Rng) -> torch.Tensor:
        count = len(drawn.views) * self.grid[0] * self.grid[1]
        chosen = torch.from_numpy(rng.bytes(count)).view(-1, 1, *self.grid) < self.masked_percent * 256 // 100
        missing = chosen.repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)
        pixels = drawn.views.float() / 255
        said = self.pixels(look(pixels.masked_fill(missing, 0.5)).tokens)
        true = functional.pixel_unshuffle(pixels, self.patch).flatten(2).transpose(1, 2)
        where = chosen.flatten(1)
        return functional.mse_loss(said[where], true[where]) / true.var()

    @torch.no_grad()
    def check(self, look: Look, drawn: Drawn) -> dict[str, float]:
        """Share of the missing pixels' variance that is not explained, in percent."""
        return {"unexplained": round(100 * float(self.loss(look, drawn, Rng(0))), 1)}
