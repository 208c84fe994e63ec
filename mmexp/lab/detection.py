"""Object detection, as EVA-02's part among the experts: each token predicts the object that it lies on."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mmexp.interfaces import FeatureShape
from mmexp.lab.drawn import NOTHING, OBJECT_VALUES, Drawn, labelled_loss, percent_right
from mmexp.lab.objective import Look, Objective
from mmexp.lab.rng import Rng
from mmexp.lab.world import WorldSpec


class Detection(Objective):
    """Whether there is an object, its colour, shape and size, and its box, per token (in the manner of FCOS,
    arXiv:1904.01355: distances from the token's centre to the four sides, here in cells and with an L1 loss).

    Args:
        box_weight: weight of the boxes against that of each of the rest.
        shape: of the encoder's deepest tap; a fact of the network.
        spec: a fact of the world.
    """

    def __init__(self, *, box_weight: float, shape: FeatureShape, spec: WorldSpec) -> None:
        super().__init__()
        assert shape.grid is not None
        self.box_weight, self.grid, self.spec = box_weight, shape.grid, spec
        self.there = nn.Linear(shape.dim, 2)
        self.kinds = nn.ModuleDict({name: nn.Linear(shape.dim, len(OBJECT_VALUES[name])) for name in OBJECT_VALUES})
        self.box = nn.Linear(shape.dim, 4)

    def loss(self, look: Look, drawn: Drawn, rng: Rng) -> torch.Tensor:
        tokens = look(drawn.views).tokens
        total = sum(
            (labelled_loss(head(tokens), drawn.token_labels(name, self.grid)) for name, head in self.kinds.items()),
            start=labelled_loss(self.there(tokens), self.covered(drawn).long()),
        )
        boxes, covered = self.boxes(drawn), self.covered(drawn)
        return total + self.box_weight * functional.l1_loss(self.box(tokens)[covered], boxes[covered])

    def covered(self, drawn: Drawn) -> torch.Tensor:
        """(B, N) bool."""
        return drawn.token_labels("size", self.grid) != NOTHING

    def boxes(self, drawn: Drawn) -> torch.Tensor:
        """(B, N, 4): distances to left, top, right and bottom of the token's object; 0 where there is none."""
        owners = drawn.owners(self.grid)
        most = max(len(masks) for masks in drawn.masks)
        sides = np.zeros((len(drawn.masks), most + 1, 4), dtype=np.float32)
        for place, masks in enumerate(drawn.masks):
            for number, mask in enumerate(masks):
                rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
                sides[place, number] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        found = torch.from_numpy(sides).gather(1, owners[..., None].expand(-1, -1, 4))
        step = torch.tensor([self.spec.image_size / self.grid[1], self.spec.image_size / self.grid[0]])
        x, y = torch.meshgrid(
            (torch.arange(self.grid[1]) + 0.5) * step[0], (torch.arange(self.grid[0]) + 0.5) * step[1], indexing="xy"
        )
        centre = torch.stack([x, y, x, y], dim=-1).view(1, -1, 4)
        return (found - centre) / self.spec.cell

    @torch.no_grad()
    def check(self, look: Look, drawn: Drawn) -> dict[str, float]:
        """Percent right of the covered tokens, and of all for ``there``; mean error of a side in pixels."""
        tokens, covered = look(drawn.views).tokens, self.covered(drawn)
        right = {
            name: percent_right(head(tokens), drawn.token_labels(name, self.grid)) for name, head in self.kinds.items()
        }
        error = (self.box(tokens) - self.boxes(drawn))[covered].abs().mean() * self.spec.cell
        return {"there": percent_right(self.there(tokens), covered.long()), **right, "box": round(float(error), 2)}
