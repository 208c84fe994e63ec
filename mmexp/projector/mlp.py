"""Multi-layer perceptron applied to each token: LLaVA-1.5's ``mlp2x_gelu`` and its deeper variants."""

from torch import nn

from mmexp.errors import UserError, nearest
from mmexp.interfaces import FeatureMap, Grid

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


class MlpProjector(nn.Module):
    """(W, N, in_dim) -> (W, N, out_dim): Linear(in, out), then ``depth - 1`` times activation and Linear(out, out).

    Args:
        depth: number of linear layers, at least 1.
        activation: ``gelu``, ``relu`` or ``silu``.
    """

    def __init__(
        self, *, depth: int, activation: str, in_dim: int, in_tokens: int, in_grid: Grid | None, out_dim: int
    ) -> None:
        super().__init__()
        if depth < 1:
            raise UserError(f"projector.depth: {depth} linear layers; at least 1")
        if activation not in ACTIVATIONS:
            raise UserError(f"projector.activation: no '{activation}'; {nearest(activation, ACTIVATIONS)}")
        self.num_tokens, self.grid, self.out_dim = in_tokens, in_grid, out_dim
        layers: list[nn.Module] = [nn.Linear(in_dim, out_dim)]
        for _ in range(depth - 1):
            layers += [ACTIVATIONS[activation](), nn.Linear(out_dim, out_dim)]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: FeatureMap) -> FeatureMap:
        return FeatureMap(self.layers(features.tokens), features.grid)
