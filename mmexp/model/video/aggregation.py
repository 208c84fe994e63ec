"""From the visual tokens of a video's frames to those of the video, without training (FreeVA, arXiv 2405.07798).

All stand after the projector (and a token reduction), where FreeVA found them better than before it. Each one
assembles views, so that to the model a video is an image whose views are its frames.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from mmexp.errors import UserError
from mmexp.interfaces import Grid, ImageSize


class Aggregation(nn.Module, ABC):
    """Tokens of frames (W, Q, D) -> list of (tokens of the video, D), one per video.

    Args:
        frames: T, how many are taken of a video.
    """

    def __init__(self, *, frames: int) -> None:
        super().__init__()
        if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1:
            raise UserError(f"video.frames: {frames} must be at least 1 frame")
        self.frames = frames

    @property
    def label(self) -> str:
        """As in ``mean_8``."""
        return f"{type(self).__name__.lower()}_{self.frames}"

    @abstractmethod
    def num_tokens(self, frames: int, per_frame: int) -> int:
        """Visual tokens of a video of which ``frames`` are taken, with ``per_frame`` tokens each."""

    @abstractmethod
    def joined(self, tokens: torch.Tensor) -> torch.Tensor:
        """(frames, Q, D) -> (tokens, D)."""

    def forward(
        self, tokens: torch.Tensor, grid: Grid | None, view_counts: Sequence[int], sizes: Sequence[ImageSize]
    ) -> list[torch.Tensor]:
        return [self.joined(part) for part in tokens.split(list(view_counts))]


class Concat(Aggregation):
    """All tokens of all frames, frame after frame (FreeVA's D1)."""

    def num_tokens(self, frames: int, per_frame: int) -> int:
        return frames * per_frame

    def joined(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.flatten(0, 1)


class MaxPool(Aggregation):
    """Maximum of each ``kernel`` successive tokens of a frame, then frame after frame (FreeVA's D2, Dense Connector).

    Tokens are taken row by row as they come, not in two dimensions; the remainder of a frame is dropped, as by
    the official ``MaxPool1d`` (729 tokens become 364).

    Args:
        kernel: tokens that become one, 2 in both papers.
    """

    def __init__(self, *, frames: int, kernel: int) -> None:
        super().__init__(frames=frames)
        if isinstance(kernel, bool) or not isinstance(kernel, int) or kernel < 1:
            raise UserError(f"video.kernel: {kernel} must be at least 1 token")
        self.kernel = kernel

    def num_tokens(self, frames: int, per_frame: int) -> int:
        if per_frame < self.kernel:
            raise UserError(f"video.kernel: {self.kernel} must be at most the {per_frame} tokens of a frame")
        return frames * (per_frame // self.kernel)

    def joined(self, tokens: torch.Tensor) -> torch.Tensor:
        return functional.max_pool1d(tokens.transpose(1, 2), self.kernel).transpose(1, 2).flatten(0, 1)


class Mean(Aggregation):
    """Mean over the frames, token by token (FreeVA's S1): as many tokens as one image."""

    def num_tokens(self, frames: int, per_frame: int) -> int:
        return per_frame

    def joined(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.mean(0)
