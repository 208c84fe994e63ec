"""What an expert is pre-trained for: the seam between the stage and the objectives."""

from collections.abc import Callable

import torch
from torch import nn

from mmexp.interfaces import FeatureMap
from mmexp.lab.drawn import Drawn
from mmexp.lab.rng import Rng

Look = Callable[[torch.Tensor], FeatureMap]
"""The encoder: views (B, 3, H, W), uint8 or float in 0..1, to the map of its deepest tap."""


class Objective(nn.Module):
    """Has the heads that training needs and that are not kept."""

    def loss(self, look: Look, drawn: Drawn, rng: Rng) -> torch.Tensor:
        """Scalar; ``rng`` for what is random."""
        raise NotImplementedError  # abstract

    def check(self, look: Look, drawn: Drawn) -> dict[str, float]:
        """How well it is reached on scenes that were not trained on."""
        raise NotImplementedError  # abstract

    def finish(self, network: nn.Module) -> None:
        """Last change of the network before it is saved."""
