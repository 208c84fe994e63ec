"""What every encoder shares: run the blocks up to the deepest tap, hand out the taps, let others inject.

Taps are read by forward hooks on the network's own blocks, so one mechanism serves timm and transformers,
plain and hierarchical networks; the blocks after the deepest tap are not run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mmexp.errors import UserError
from mmexp.interfaces import FeatureMap, FeatureShape, Inject


class _DeepestTapReached(Exception):
    """Leaves the network's forward once nothing more is needed."""


class BlockEncoder(nn.Module):
    """Base of the encoders. A subclass sets the facts below and implements ``run``.

    ``blocks``: the blocks (or stages) in order. ``layout``: ``"tokens"`` (W, P + N, D), ``"channels_last"``
    (W, h, w, D) or ``"channels_first"`` (W, D, h, w) as the blocks hand them on. ``num_prefix_tokens`` P: class and
    register tokens, never part of a feature map.
    """

    num_prefix_tokens: int
    layout: str
    depth: int
    network: Any
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(list(mean)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(list(std)).view(1, 3, 1, 1), persistent=False)

    def blocks(self) -> nn.ModuleList | nn.Sequential:
        """The modules whose outputs are the taps 1..depth."""
        raise NotImplementedError  # abstract

    def run(self, pixels: torch.Tensor) -> torch.Tensor:
        """The network's own forward; its result is used only for its side effect on the blocks."""
        raise NotImplementedError  # abstract

    def shape(self, tap: int) -> FeatureShape:
        raise NotImplementedError  # abstract

    def final(self, tokens: torch.Tensor) -> torch.Tensor:
        """What is applied to the deepest tap (tap == depth): a final norm where the config asks for it."""
        return tokens

    def normalize(self, views: torch.Tensor) -> torch.Tensor:
        """(W, 3, H, W_px) uint8 in 0..255 -> float with this encoder's mean and std; float input is in 0..1."""
        pixels = views.to(self.mean.dtype)
        if not views.is_floating_point():
            pixels = pixels / 255
        return (pixels - self.mean) / self.std

    def forward(
        self, pixels: torch.Tensor, taps: Sequence[int], inject: Mapping[int, Inject] | None = None
    ) -> list[FeatureMap]:
        """(W, 3, H, W_px) normalised -> one ``FeatureMap`` per tap, in the order of ``taps``.

        Raises ``UserError`` for a tap outside 0..depth.
        """
        inject = dict(inject or {})
        check_taps([*taps, *inject], self.depth)
        deepest = max(taps)
        raw: dict[int, torch.Tensor] = {}
        handles = self._hooks(set(taps), deepest, inject, raw)
        try:
            self.run(pixels)
        except _DeepestTapReached:
            pass
        finally:
            for handle in handles:
                handle.remove()
        maps = {tap: self._feature_map(tap, raw[tap]) for tap in set(taps)}
        return [maps[tap] for tap in taps]

    def _hooks(
        self, taps: set[int], deepest: int, inject: dict[int, Inject], raw: dict[int, torch.Tensor]
    ) -> list[torch.utils.hooks.RemovableHandle]:
        blocks = list(self.blocks())

        def before_first(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            hidden = args[0] if args else kwargs["hidden_states"]
            changed = self._inject(hidden, inject[0]) if 0 in inject else hidden
            if 0 in taps:
                raw[0] = changed
            if deepest == 0:
                raise _DeepestTapReached
            if changed is hidden:
                return None
            return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})

        def after(index: int) -> Any:
            def hook(_module: nn.Module, _args: tuple, output: torch.Tensor | tuple) -> torch.Tensor | tuple | None:
                hidden = output[0] if isinstance(output, tuple) else output
                changed = self._inject(hidden, inject[index]) if index in inject else hidden
                if index in taps:
                    raw[index] = changed
                if index == deepest:
                    raise _DeepestTapReached
                if changed is hidden:
                    return None
                return (changed, *output[1:]) if isinstance(output, tuple) else changed

            return hook

        handles = [blocks[0].register_forward_pre_hook(before_first, with_kwargs=True)]
        for index in sorted(taps | set(inject)):
            if 0 < index <= deepest:
                handles.append(blocks[index - 1].register_forward_hook(after(index)))
        return handles

    def _feature_map(self, tap: int, hidden: torch.Tensor) -> FeatureMap:
        tokens, grid = self._tokens(hidden)
        if tap == self.depth:
            tokens = self.final(tokens)
        return FeatureMap(tokens, grid or self.shape(tap).grid)

    def _tokens(self, hidden: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int] | None]:
        if self.layout == "tokens":
            return hidden[:, self.num_prefix_tokens :], None
        if self.layout == "channels_first":
            return hidden.flatten(2).transpose(1, 2), (hidden.shape[2], hidden.shape[3])
        return hidden.flatten(1, 2), (hidden.shape[1], hidden.shape[2])

    def _inject(self, hidden: torch.Tensor, fn: Inject) -> torch.Tensor:
        """Apply ``fn`` to the patch tokens; class tokens stay as they are."""
        tokens, _ = self._tokens(hidden)
        changed = fn(tokens)
        if changed.shape != tokens.shape:
            raise ValueError(f"an injected feature map changed shape: {tuple(tokens.shape)} -> {tuple(changed.shape)}")
        if self.layout == "tokens":
            return torch.cat([hidden[:, : self.num_prefix_tokens], changed], dim=1)
        if self.layout == "channels_first":
            return changed.transpose(1, 2).reshape(hidden.shape)
        return changed.reshape(hidden.shape)


def check_taps(taps: Sequence[int], depth: int) -> None:
    """Raises ``UserError`` unless every tap is in 0..depth."""
    for tap in taps:
        if not 0 <= tap <= depth:
            raise UserError(f"feature_layers: depth {tap} is not in this encoder: it has 0 (stem) to {depth}")
