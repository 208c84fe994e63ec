"""Peak memory of DCI over all 24 layers of CLIP-L: running sums in the encoder, against keeping the maps.

Counts the bytes of all storages that are alive at once during a forward pass without gradients (weights apart). By
default on meta tensors at the real size: nothing is computed, every tensor is made and freed as on a device (attention
in its plain form, which holds its matrices; the last column is what the choice of layers adds).

    python benchmarks/feature_layers_memory.py [--views 32] [--dtype bfloat16] [--layers dci] [--device meta]
"""

import argparse
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmexp.config import Composer
from mmexp.interfaces import FeatureMap
from mmexp.model.encoder.block_encoder import depths_of
from mmexp.model.visual import build_encoder


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages made under it: alive now, and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.count(leaf.untyped_storage())
        return out

    def count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self.alive:
            return
        self.alive[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.free, key)

    def free(self, key: int) -> None:
        self.now -= self.alive.pop(key)


def running_sums(encoder: Any, layers: Any, pixels: torch.Tensor) -> torch.Tensor:
    """As mmexp runs it."""
    return layers(encoder(pixels, layers.taps)).tokens


def kept_maps(encoder: Any, layers: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Every depth a tap of its own, means afterwards one by one."""
    states = dict(enumerate(encoder(pixels, range(max(depths_of(layers.taps)) + 1))))
    means = [means_of(tap, states, stack=False) for tap in layers.taps]
    return layers(means).tokens


def stacked_maps(encoder: Any, layers: Any, pixels: torch.Tensor) -> torch.Tensor:
    """As the official code: every hidden state kept, each group stacked and summed."""
    states = dict(enumerate(encoder(pixels, range(encoder.depth + 1))))
    means = [means_of(tap, states, stack=True) for tap in layers.taps]
    return layers(means).tokens


def means_of(tap: int | tuple[int, ...], states: dict[int, FeatureMap], stack: bool) -> FeatureMap:
    if isinstance(tap, int):
        return states[tap]
    tokens = [states[depth].tokens for depth in tap]
    if stack:
        return FeatureMap(torch.stack(tokens).sum(dim=0) / len(tap), states[0].grid)
    total = tokens[0].to(torch.float32, copy=True)
    for part in tokens[1:]:
        total.add_(part)
    return FeatureMap((total / len(tap)).to(tokens[0].dtype), states[0].grid)


def last_block(encoder: Any, _layers: Any, pixels: torch.Tensor) -> torch.Tensor:
    """The encoder alone: what every choice needs at least."""
    return encoder(pixels, [encoder.depth - 1])[0].tokens


WAYS: dict[str, Callable[[Any, Any, torch.Tensor], torch.Tensor]] = {
    "penultimate layer only": last_block,
    "dci, running sums": running_sums,
    "dci, all maps kept": kept_maps,
    "dci, all maps stacked": stacked_maps,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=32)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--layers", default="dci")
    parser.add_argument("--device", default="meta")
    options = parser.parse_args()
    with Composer("paper").open() as composer:
        config = composer.compose(["encoder=[clip]", f"feature_layers={options.layers}"]).resolved()
    dtype = getattr(torch, options.dtype)
    with torch.device(options.device), torch.no_grad():
        encoder, layers, shapes = build_encoder("clip", config["model"]["encoders"]["clip"], load=False)
        encoder, layers = encoder.to(dtype), layers.to(dtype)
        pixels = torch.empty(options.views, 3, encoder.image_size, encoder.image_size, dtype=dtype)
        one_map = options.views * shapes[0].num_tokens * shapes[0].dim * dtype.itemsize
        print(f"{options.views} views, {options.dtype}, one map {one_map / 2**20:.0f} MiB")
        least = 0
        for name, way in WAYS.items():
            with LiveBytes() as live:
                out = way(encoder, layers, pixels)
            least = least or live.peak
            print(f"{name:<24} peak {live.peak / 2**20:6.0f} MiB   more {(live.peak - least) / 2**20:5.0f} MiB")
            del out


if __name__ == "__main__":
    main()
