"""Segmentation without colour, as SAM's part among the experts: the outlines and forms of things."""

import torch
from torch import nn
from torch.nn import functional

from mmexp.errors import UserError
from mmexp.interfaces import FeatureShape
from mmexp.lab.drawn import NOTHING, Drawn, labelled_loss, percent_right
from mmexp.lab.objective import Look, Objective
from mmexp.lab.rng import Rng
from mmexp.lab.world import SHAPES, SIZES, WorldSpec


class Segmentation(Objective):
    """Each token predicts the mask of its patch, pixel by pixel, and the form (shape and size) of what covers it.

    The network sees only one channel, now with less contrast, now inverted: a film for one colour of light, on which
    things are light or dark. Its first convolution ends without weights for the others.

    Args:
        channel: what it sees, 0 to 2. In the drawn world blue (2) tells the background from all colours and tells few
            colours apart; the mean of the channels hides green on the background.
        min_gain: contrast is scaled by ``min_gain`` to 1, 0..1.
        mask_weight: weight of the masks against that of the forms.
        shape: of the encoder's deepest tap; a fact of the network.
        spec: a fact of the world.

    Raises:
        UserError: no such channel.
    """

    def __init__(
        self, *, channel: int, min_gain: float, mask_weight: float, shape: FeatureShape, spec: WorldSpec
    ) -> None:
        super().__init__()
        assert shape.grid is not None
        if channel not in (0, 1, 2):
            raise UserError(f"objective.channel: {channel} must be 0, 1 or 2 (red, green, blue)")
        self.channel, self.min_gain, self.mask_weight, self.grid = channel, min_gain, mask_weight, shape.grid
        self.patch = (spec.image_size // shape.grid[0], spec.image_size // shape.grid[1])
        self.form = nn.Linear(shape.dim, len(SHAPES) * len(SIZES) + 1)
        self.mask = nn.Linear(shape.dim, self.patch[0] * self.patch[1])

    def loss(self, look: Look, drawn: Drawn, rng: Rng) -> torch.Tensor:
        tokens = look(self.grey(drawn.views, rng)).tokens
        masks = functional.binary_cross_entropy_with_logits(self.mask(tokens), self.masks(drawn).float())
        return labelled_loss(self.form(tokens), self.forms(drawn)) + self.mask_weight * masks

    def grey(self, views: torch.Tensor, rng: Rng) -> torch.Tensor:
        """(B, 3, H, W) in 0..1 with three equal channels."""
        random = torch.from_numpy(rng.bytes(2 * len(views))).view(2, -1, 1, 1, 1).float() / 255
        gain = (self.min_gain + (1 - self.min_gain) * random[0]) * (random[1] < 0.5).float().mul(2).sub(1)
        level = views[:, self.channel, None].float() / 255
        return (0.5 + gain * (level - 0.5)).expand_as(views)

    def forms(self, drawn: Drawn) -> torch.Tensor:
        """(B, N): 0 for the background, then shape by size."""
        shape, size = (drawn.token_labels(name, self.grid) for name in ("shape", "size"))
        return torch.where(shape == NOTHING, 0, 1 + shape * len(SIZES) + size)

    def masks(self, drawn: Drawn) -> torch.Tensor:
        """(B, N, pixels of a patch) bool."""
        whole = torch.stack([torch.from_numpy(masks.any(axis=0)) for masks in drawn.masks])
        (rows, columns), (height, width) = self.grid, self.patch
        return whole.view(-1, rows, height, columns, width).transpose(2, 3).flatten(3).flatten(1, 2)

    @torch.no_grad()
    def check(self, look: Look, drawn: Drawn) -> dict[str, float]:
        """Percent of covered tokens with the right form; intersection over union of the masks, in percent."""
        tokens = look(drawn.views).tokens
        forms = self.forms(drawn)
        said, true = self.mask(tokens) > 0, self.masks(drawn)
        iou = 100 * float((said & true).sum() / (said | true).sum())
        return {"form": percent_right(self.form(tokens), forms.masked_fill(forms == 0, NOTHING)), "iou": round(iou, 1)}

    @torch.no_grad()
    def finish(self, network: nn.Module) -> None:
        """All weights go to the one channel: on grey images nothing changes, and the other channels are not seen."""
        first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        total = first.weight.sum(1)
        first.weight.zero_()
        first.weight[:, self.channel] = total
