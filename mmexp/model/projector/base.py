"""What every projector shares: optional parts around its own layers, initialisation, gradient checkpointing.

Definitions: Honeybee (arXiv 2312.06742) and its code, section 4 of the fact sheet. Deliberate differences: position
embeddings are added to a copy, never in place into the encoder's output; a stored state never names a missing
position embedding; checkpointing passes on every argument by name or in order.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmexp.interfaces import FeatureMap, FeatureShape, Grid
from mmexp.model.projector.checks import require_at_least

EMBEDDING_STD = 0.02
"""Standard deviation of fresh position embeddings, EOS tokens and queries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """The options that all projectors have; the config gives them flat, next to a projector's own.

    Attributes:
        prenorm: a LayerNorm on the encoder's features.
        pos_emb: a learned embedding per encoder token, added to the features.
        num_eos_tokens: learned tokens after the visual ones, the same for each view.
        init_std: Linear, Conv2d, Embedding weights start from N(0, init_std^2), biases from 0; null keeps torch's own.
        gradient_checkpointing: recompute a block's activations in the backward pass.
    """

    prenorm: bool
    pos_emb: bool
    num_eos_tokens: int
    init_std: float | None
    gradient_checkpointing: bool


class FramedProjector(nn.Module):
    """prenorm, position embedding, ``project``, EOS tokens.

    Args:
        frame: the shared options.
        source: the stream that comes in.
        num_tokens: what ``project`` yields; EOS tokens come on top.
        grid: rows and columns of what ``project`` yields; lost when EOS tokens follow.
        out_dim: width of the LLM.
        pos_dim: width where the position embedding is added; the source's where None.
        eos_dim: width where the EOS tokens are appended; ``out_dim`` where None.
    """

    def __init__(
        self,
        frame: Frame,
        source: FeatureShape,
        *,
        num_tokens: int,
        grid: Grid | None,
        out_dim: int,
        pos_dim: int | None = None,
        eos_dim: int | None = None,
    ) -> None:
        super().__init__()
        require_at_least("num_tokens", num_tokens, 1)
        require_at_least("num_eos_tokens", frame.num_eos_tokens, 0)
        require_at_least("init_std", frame.init_std or 0, 0)
        self.frame = frame
        self.num_tokens = num_tokens + frame.num_eos_tokens
        self.grid = None if frame.num_eos_tokens else grid
        self.out_dim = out_dim
        # Honeybee's norm is timm's LayerNorm, whose eps is 1e-6.
        self.prenorm = nn.LayerNorm(source.dim, eps=1e-6) if frame.prenorm else nn.Identity()
        self.pos_emb = learned(source.num_tokens, pos_dim or source.dim) if frame.pos_emb else None
        self.eos_tokens = learned(frame.num_eos_tokens, eos_dim or out_dim) if frame.num_eos_tokens else None

    def forward(self, features: FeatureMap) -> FeatureMap:
        tokens = self.project(self.positioned(self.prenorm(features.tokens)))
        return FeatureMap(self.with_eos(tokens), self.grid)

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        """(W, N, in_dim) -> (W, Q, out_dim)."""
        raise NotImplementedError  # abstract

    def positioned(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens if self.pos_emb is None else tokens + self.pos_emb.to(tokens.dtype)

    def with_eos(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.eos_tokens is None:
            return tokens
        return torch.cat([tokens, self.eos_tokens.to(tokens.dtype).expand(len(tokens), -1, -1)], dim=1)

    def run(self, block: Callable[..., torch.Tensor], *args: torch.Tensor) -> torch.Tensor:
        """Call a block, keeping only its inputs for the backward pass where checkpointing is on."""
        if self.frame.gradient_checkpointing and torch.is_grad_enabled():
            recomputed: torch.Tensor = checkpoint(block, *args, use_reentrant=False)
            return recomputed
        return block(*args)

    def draw_weights(self) -> None:
        """Initialise by ``frame.init_std``; subclasses call it once all their layers exist."""
        if self.frame.init_std is None:
            return
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
                nn.init.normal_(module.weight, std=self.frame.init_std)
                bias = getattr(module, "bias", None)
                if bias is not None:
                    nn.init.zeros_(bias)


def learned(count: int, dim: int) -> nn.Parameter:
    """(1, count, dim) from N(0, ``EMBEDDING_STD``^2).

    The official truncation at 2 is a hundred standard deviations away; torch's truncated normal reads values, which
    the planner's meta tensors do not have.
    """
    return nn.Parameter(nn.init.normal_(torch.empty(1, count, dim), std=EMBEDDING_STD))
