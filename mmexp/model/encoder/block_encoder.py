"""What every encoder shares: run the blocks up to the deepest tap, return the taps, let others inject features.

Taps are read by forward hooks on the network's own blocks, so one mechanism serves timm and transformers,
plain and hierarchical networks; the blocks after the deepest tap are not run. Of a group of depths only the running
sum is kept.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mmexp.errors import UserError
from mmexp.interfaces import FeatureMap, FeatureShape, Grid, Inject

Tap = int | tuple[int, ...]
"""A depth, or a group of depths whose mean is wanted: one tap like any other for feature layers and caches."""

_REACHED: dict[Any, set[str]] = {}
"""Class, input size, names and shapes of parameters, taps -> what ``reached`` found: rows of a sweep ask the same."""


class _DeepestTapReached(Exception):
    """Leaves the network's forward once nothing more is needed."""


class _Taken:
    """What the hooks keep: the maps of single depths, and one running sum of each group."""

    def __init__(self, taps: Iterable[Tap], feature_map: Callable[[int, torch.Tensor], FeatureMap]) -> None:
        self.taps, self.depths, self.feature_map = set(taps), depths_of(taps), feature_map
        self.kept: dict[Tap, FeatureMap] = {}

    def take(self, depth: int, hidden: torch.Tensor) -> None:
        """Called once for each depth, in the order of the network."""
        if depth not in self.depths:
            return
        feature = self.feature_map(depth, hidden)
        for tap in self.taps:
            if tap == depth:
                self.kept[tap] = feature
            elif isinstance(tap, tuple) and depth in tap:
                self._add(tap, feature.tokens, feature.grid)
                if depth == max(tap):
                    self.kept[tap].tokens = (self.kept[tap].tokens / len(tap)).to(feature.tokens.dtype)

    def _add(self, group: tuple[int, ...], tokens: torch.Tensor, grid: Grid | None) -> None:
        if group not in self.kept:
            # In float32: bfloat16 has too few digits for a sum of many maps.
            wide = torch.promote_types(tokens.dtype, torch.float32)
            self.kept[group] = FeatureMap(tokens.to(wide, copy=True), grid)
        elif self.kept[group].tokens.shape != tokens.shape:
            raise ValueError(f"the maps of depths {group} differ in shape, so they have no mean")
        else:
            self.kept[group].tokens.add_(tokens)


class BlockEncoder(nn.Module):
    """Base of the encoders. A subclass sets the facts below and implements ``run``.

    ``blocks``: the blocks (or stages) in order. ``layout``: ``"tokens"`` (W, P + N, D), ``"channels_last"``
    (W, h, w, D) or ``"channels_first"`` (W, D, h, w) as the blocks return them. ``num_prefix_tokens`` P: class and
    register tokens, never part of a feature map.
    """

    num_prefix_tokens: int
    layout: str
    depth: int
    image_size: int
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
        self, pixels: torch.Tensor, taps: Sequence[Tap], inject: Mapping[int, Inject] | None = None
    ) -> list[FeatureMap]:
        """(W, 3, H, W_px) normalised -> one ``FeatureMap`` per tap, in the order of ``taps``.

        Raises ``UserError`` for a depth outside 0..depth.
        """
        inject = dict(inject or {})
        check_taps([*taps, *inject], self.depth)
        taken = _Taken(taps, self._feature_map)
        handles = self._hooks(taken, inject)
        # A hook can end a network's forward only by raising: what comes after the deepest tap costs nothing.
        try:
            self.run(pixels)
        except _DeepestTapReached:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return [taken.kept[tap] for tap in taps]

    def reached(self, taps: Sequence[Tap]) -> set[str]:
        """Names of the parameters that a gradient from these taps reaches: not the blocks after the deepest tap, nor
        norms and tokens that nothing reads. Found by a backward pass without memory, so it holds for any network."""
        shapes = tuple((name, tuple(value.shape)) for name, value in self.named_parameters())
        key = (type(self), self.image_size, shapes, tuple(taps))
        if key not in _REACHED:
            _REACHED[key] = self._find_reached(taps)
        return _REACHED[key]

    def _find_reached(self, taps: Sequence[Tap]) -> set[str]:
        # Which parameters a forward uses differs from network to network (norms, class tokens, heads), so autograd is
        # asked instead of the names: on meta tensors a backward pass costs neither memory nor arithmetic.
        state = {name: value.to("meta") for name, value in [*self.named_parameters(), *self.named_buffers()]}
        leaves = {name: state[name].detach().requires_grad_() for name, _ in self.named_parameters()}
        pixels = torch.zeros(1, 3, self.image_size, self.image_size, device="meta", dtype=self.mean.dtype)
        with torch.enable_grad():
            maps = torch.func.functional_call(self, {**state, **leaves}, (pixels, taps))
            total = torch.stack([part.tokens.sum() for part in maps]).sum()
            gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        return {name for name, gradient in zip(leaves, gradients, strict=True) if gradient is not None}

    def _hooks(self, taken: _Taken, inject: dict[int, Inject]) -> list[torch.utils.hooks.RemovableHandle]:
        blocks = list(self.blocks())
        deepest = max(taken.depths)

        def before_first(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            # timm passes the tokens by position; some towers of transformers by name.
            hidden = args[0] if args else kwargs["hidden_states"]
            changed = self._inject(hidden, inject[0]) if 0 in inject else hidden
            taken.take(0, changed)
            if deepest == 0:
                raise _DeepestTapReached
            if changed is hidden:
                return None  # for torch: leave the input as it is
            return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})

        def after(index: int) -> Any:
            def hook(_module: nn.Module, _args: tuple, output: torch.Tensor | tuple) -> torch.Tensor | tuple | None:
                hidden = output[0] if isinstance(output, tuple) else output
                changed = self._inject(hidden, inject[index]) if index in inject else hidden
                taken.take(index, changed)
                if index == deepest:
                    raise _DeepestTapReached
                if changed is hidden:
                    return None
                return (changed, *output[1:]) if isinstance(output, tuple) else changed

            return hook

        handles = [blocks[0].register_forward_pre_hook(before_first, with_kwargs=True)]
        for index in sorted(taken.depths | set(inject)):
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


def depths_of(taps: Iterable[Tap]) -> set[int]:
    """All depths that are read, those of groups included."""
    return {depth for tap in taps for depth in (tap if isinstance(tap, tuple) else (tap,))}


def tap_name(tap: Tap) -> str:
    """``23``, or ``0+1+2`` for the mean of a group; fit for file names."""
    return "+".join(map(str, tap)) if isinstance(tap, tuple) else str(tap)


def check_taps(taps: Sequence[Tap], depth: int) -> None:
    """Raises ``UserError`` for a depth outside 0..depth, and for a group that is empty or repeats a depth."""
    for tap in taps:
        if isinstance(tap, tuple) and (not tap or len(set(tap)) < len(tap)):
            raise UserError(f"feature_layers: '{tap_name(tap)}' is not a valid group; list depths, each of them once")
    for tap in sorted(depths_of(taps)):
        if not 0 <= tap <= depth:
            raise UserError(f"feature_layers: depth {tap} is beyond this encoder, which has 0 (stem) to {depth}")
