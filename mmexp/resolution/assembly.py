"""From the visual tokens of all views of a batch to those of each image."""

from collections.abc import Sequence

import torch
from torch import nn

from mmexp.interfaces import Grid, ImageSize


class JoinViews(nn.Module):
    """The views of an image one after the other: (W, Q, D) -> list of (views * Q, D), one per image."""

    def forward(
        self, tokens: torch.Tensor, grid: Grid | None, view_counts: Sequence[int], sizes: Sequence[ImageSize]
    ) -> list[torch.Tensor]:
        return [part.flatten(0, 1) for part in tokens.split(list(view_counts))]
