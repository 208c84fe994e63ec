"""Keep every visual token."""

from torch import nn

from mmexp.interfaces import FeatureMap, Grid


class NoReduction(nn.Module):
    """Returns its input. All arguments are build-time facts."""

    def __init__(self, *, in_tokens: int, in_grid: Grid | None) -> None:
        super().__init__()
        self.num_tokens, self.grid = in_tokens, in_grid

    def forward(self, features: FeatureMap) -> FeatureMap:
        return features
