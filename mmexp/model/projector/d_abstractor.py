"""D-Abstractor: queries read the feature map by deformable attention (Honeybee, arXiv 2312.06742).

Section 3.2, App. B.4 and Table 9; computes the same as the released module from the same weights, in any precision and
on any device. Deliberate differences: checkpointing passes all arguments (the released code loses the positions);
points and offsets that the released YAML names but ignores are real options here; one feature level only, because
a stream is one feature map.
"""

import torch
from torch import nn

from mmexp.interfaces import FeatureMap, FeatureShape, Grid
from mmexp.model.projector.base import Frame, FramedProjector
from mmexp.model.projector.checks import inner_dim, require_at_least, require_choice
from mmexp.model.projector.deformable import DeformableAttention, DeformableLayer
from mmexp.model.projector.token_grid import pool, require_grid, square_side

TARGETS = ("query", "tgt", "none")
POINTS = ("grid", "query")
OFFSETS = ("zero", "star")


class DAbstractor(FramedProjector):
    """(W, N, in_dim) -> (W, num_tokens, out_dim) in rows and columns.

    The position embedding is added, and EOS tokens are appended, in the width inside, as in the released code.

    Args:
        num_tokens: a square number.
        depth: number of layers.
        hidden_dim: width inside; null is the encoder's width (then there is no input layer).
        num_heads: divides the width inside.
        num_points: places that each head of a query reads.
        ffn_ratio: width of the feed-forward part in units of the width inside.
        dropout: of each part's result.
        pooled_v_target: what the pooled feature map becomes: ``query`` the queries' position embedding (their content
            is learned), ``tgt`` their content (the position is learned), ``none`` neither (both are learned).
        reference_points: ``grid`` learned points that start on a uniform grid, alike for all images; ``query`` a linear
            layer and a sigmoid on the position embedding (Deformable DETR; they start near the centre).
        offset_init: ``zero`` bias as the released code has it in effect; ``star`` Deformable DETR's, with zero weights.
        prenorm, pos_emb, num_eos_tokens, init_std, gradient_checkpointing: see ``Frame``.
        in_dim, in_tokens, in_grid, out_dim: build-time facts.
    """

    def __init__(
        self,
        *,
        num_tokens: int,
        depth: int,
        hidden_dim: int | None,
        num_heads: int,
        num_points: int,
        ffn_ratio: float,
        dropout: float,
        pooled_v_target: str,
        reference_points: str,
        offset_init: str,
        prenorm: bool,
        pos_emb: bool,
        num_eos_tokens: int,
        init_std: float | None,
        gradient_checkpointing: bool,
        in_dim: int,
        in_tokens: int,
        in_grid: Grid | None,
        out_dim: int,
    ) -> None:
        frame = Frame(
            prenorm=prenorm,
            pos_emb=pos_emb,
            num_eos_tokens=num_eos_tokens,
            init_std=init_std,
            gradient_checkpointing=gradient_checkpointing,
        )
        require_choice("pooled_v_target", pooled_v_target, TARGETS)
        require_choice("reference_points", reference_points, POINTS)
        require_choice("offset_init", offset_init, OFFSETS)
        require_at_least("depth", depth, 1)
        side, grid = square_side(num_tokens, "d_abstractor"), require_grid(in_grid, "d_abstractor")
        dim = inner_dim(hidden_dim, in_dim)
        source = FeatureShape(in_tokens, in_dim, in_grid)
        super().__init__(
            frame, source, num_tokens=num_tokens, grid=(side, side), out_dim=out_dim, pos_dim=dim, eos_dim=dim
        )
        self.in_grid, self.side, self.pooled_v_target = grid, side, pooled_v_target
        self.input_proj = nn.Linear(in_dim, dim) if dim != in_dim else nn.Identity()
        self.queries = nn.Embedding(num_tokens, 2 * dim if pooled_v_target == "none" else dim)
        self.reference_points = nn.Parameter(grid_points(side, grid)) if reference_points == "grid" else None
        self.point_head = nn.Linear(dim, 2) if reference_points == "query" else None
        self.layers = nn.ModuleList(
            DeformableLayer(
                dim=dim,
                num_heads=num_heads,
                num_points=num_points,
                ffn_dim=int(dim * ffn_ratio),
                dropout=dropout,
                grid=grid,
            )
            for _ in range(depth)
        )
        self.output_proj = nn.Linear(dim, out_dim) if dim != out_dim else nn.Identity()
        self.draw_weights()
        if offset_init == "star":
            for module in self.layers.modules():
                if isinstance(module, DeformableAttention):
                    module.set_radial_offsets()

    def forward(self, features: FeatureMap) -> FeatureMap:
        tokens = self.positioned(self.input_proj(self.prenorm(features.tokens)))
        queries, positions = self._queries(tokens)
        references = self._references(positions)
        for layer in self.layers:
            queries = self.run(layer, queries, positions, references, tokens)
        return FeatureMap(self.output_proj(self.with_eos(queries)), self.grid)

    def _queries(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Content and position embedding of the queries, (W, Q, D) each."""
        learnt = self.queries.weight.to(tokens.dtype).expand(len(tokens), -1, -1)
        if self.pooled_v_target == "none":
            positions, content = learnt.chunk(2, dim=-1)
            return content, positions
        pooled = pool(tokens, self.in_grid, self.side)
        return (learnt, pooled) if self.pooled_v_target == "query" else (pooled, learnt)

    def _references(self, positions: torch.Tensor) -> torch.Tensor:
        """(W, Q, 2) as (x, y) in 0..1."""
        if self.point_head is not None:
            points: torch.Tensor = self.point_head(positions).float().sigmoid()
            return points
        assert self.reference_points is not None
        return self.reference_points.expand(len(positions), -1, -1)


def grid_points(side: int, grid: Grid) -> torch.Tensor:
    """(1, side * side, 2) as (x, y): from the centre of the first token to that of the last, evenly."""
    rows, columns = grid
    y = torch.linspace(0.5, rows - 0.5, side) / rows
    x = torch.linspace(0.5, columns - 0.5, side) / columns
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).flatten(0, 1)[None]
