"""The vision side of the composed model: views in, visual tokens of the LLM's width out.

Every shape is known when the parts are built, so that a wrong combination is refused before a tensor flows and the
data side knows the number of visual tokens of an image without a forward pass.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mmexp.errors import UserError
from mmexp.instantiate import instantiate
from mmexp.interfaces import (
    Encoder,
    FeatureLayers,
    FeatureMap,
    FeatureShape,
    Fusion,
    Grid,
    ImageBatch,
    ImageSize,
    Projector,
    Resolution,
    TokenReduction,
)
from mmexp.model.encoder.block_encoder import Tap, depths_of


class VisionSide(nn.Module):
    """Encoders, feature layers, fusion, projectors, reductions, assembly.

    Args:
        spec: the config node ``model`` (encoders, fusion, projector, reduction).
        out_dim: width of the LLM.
        load: False builds without reading weights.
    """

    def __init__(self, spec: Mapping[str, Any], *, out_dim: int, load: bool) -> None:
        super().__init__()
        # typed Any: torch types the values of its containers as bare modules, without our properties
        self.encoders: Any = nn.ModuleDict()
        self.feature_layers: Any = nn.ModuleDict()
        self.resolutions = {}
        tap_shapes: dict[str, list[FeatureShape]] = {}
        deepest: dict[str, int] = {}
        for name, node in spec["encoders"].items():
            encoder, layers, shapes = build_encoder(name, node, load=load)
            self.encoders[name], self.feature_layers[name], tap_shapes[name] = encoder, layers, shapes
            self.resolutions[name] = build_resolution(name, node)
            deepest[name] = max(depths_of(layers.taps))
        if not self.encoders:
            raise UserError("encoder: none is chosen; for example encoder=[clip]")
        selected = {name: layers.out_shape for name, layers in self.feature_layers.items()}
        self.fusion = instantiate(
            spec["fusion"],
            "fusion",
            expect=(nn.Module, Fusion),
            shapes=selected,
            tap_shapes=tap_shapes,
            deepest=deepest,
        )
        self.projector: Any = nn.ModuleList()
        self.reduction: Any = nn.ModuleList()
        self.reduces_first = reduces_first(spec)
        for stream in self.fusion.streams:
            projector, reduction = build_chain(spec, stream, out_dim=out_dim)
            self.projector.append(projector)
            self.reduction.append(reduction)
        self.resolution = shared_resolution(self.resolutions)
        self.assembler = self.resolution.assembler(out_dim)
        self.max_num_tokens = max(self.num_tokens(size) for size in self.resolution.sizes)
        """Visual tokens of the image that has most of them."""

    @property
    def outlets(self) -> Any:
        """The last part of each stream, whose tokens reach the LLM."""
        return self.projector if self.reduces_first else self.reduction

    @property
    def tokens_per_view(self) -> int:
        """Visual tokens Q that one view becomes, all streams together."""
        return sum(part.num_tokens for part in self.outlets)

    @property
    def grid(self) -> tuple[int, int] | None:
        return self.outlets[0].grid if len(self.outlets) == 1 else None

    def num_tokens(self, size: ImageSize) -> int:
        """Visual tokens of an image of (width, height) pixels."""
        return self.resolution.num_tokens(size, self.tokens_per_view, self.grid)

    def taps(self, name: str) -> tuple[Tap, ...]:
        """What is needed of an encoder: its layer selection's depths and groups, then the fusion's extra ones."""
        return (*self.feature_layers[name].taps, *self.fusion.extra_taps().get(name, ()))

    def forward(self, images: ImageBatch) -> list[torch.Tensor]:
        """The visual tokens of each image: list of (Q_i, D_llm)."""
        fused = self.fusion(self._encode(images))
        first, second = (self.reduction, self.projector) if self.reduces_first else (self.projector, self.reduction)
        streams = [after(before(stream)) for stream, before, after in zip(fused, first, second, strict=True)]
        self._check_streams(streams)
        tokens = streams[0].tokens if len(streams) == 1 else torch.cat([stream.tokens for stream in streams], dim=1)
        return self.assembler(tokens, self.grid, images.view_counts, images.sizes)

    def _check_streams(self, streams: Sequence[FeatureMap]) -> None:
        """What comes out is what was announced: other widths would be scattered over the tokens without an error."""
        for projector, reduction, stream in zip(self.projector, self.reduction, streams, strict=True):
            last = projector if self.reduces_first else reduction
            _, found, width = stream.tokens.shape
            if (found, width) != (last.num_tokens, projector.out_dim):
                raise UserError(
                    f"projector, reduction: {type(projector).__name__} and {type(reduction).__name__} announce "
                    f"{last.num_tokens} tokens of width {projector.out_dim} and make {found} of width {width}"
                )

    def _encode(self, images: ImageBatch) -> dict[str, list[FeatureMap]]:
        done: dict[str, list[FeatureMap]] = {}
        for name in self.fusion.run_order():
            maps = self._maps(name, images, done)
            own = len(self.feature_layers[name].taps)
            done[name] = [self.feature_layers[name](maps[:own]), *maps[own:]]
        return {name: done[name] for name in self.encoders}

    def _maps(self, name: str, images: ImageBatch, done: dict[str, list[FeatureMap]]) -> list[FeatureMap]:
        encoder, taps = self.encoders[name], self.taps(name)
        cached = images.features.get(name)
        if cached is not None:
            weight = next(self.projector.parameters())
            stored: Mapping[Any, torch.Tensor] = cached
            return [FeatureMap(stored[tap].to(weight.dtype), encoder.shape(max(depths_of([tap]))).grid) for tap in taps]
        trained = any(parameter.requires_grad for parameter in encoder.parameters())
        inject = self.fusion.inject(name, done)
        with torch.set_grad_enabled(torch.is_grad_enabled() and (trained or inject is not None)):
            return encoder(encoder.normalize(images.views[name]), taps, inject)


def build_encoder(name: str, node: Mapping[str, Any], *, load: bool) -> tuple[Any, Any, list[FeatureShape]]:
    """An encoder, its layer selection, and its shapes at every depth."""
    parts = {key: value for key, value in node.items() if key not in ("resolution", "feature_layers")}
    encoder = instantiate(parts, f"model.encoders.{name}", expect=(nn.Module, Encoder), load=load)
    shapes = [encoder.shape(tap) for tap in range(encoder.depth + 1)]
    layers = instantiate(
        node["feature_layers"],
        f"model.encoders.{name}.feature_layers",
        expect=(nn.Module, FeatureLayers),
        depth=encoder.depth,
        shapes=shapes,
    )
    return encoder, layers, shapes


def reduces_first(spec: Mapping[str, Any]) -> bool:
    """Whether the token reduction comes before the projector; after it, unless the config says otherwise."""
    return spec["reduction"].get("where") == "before_projector"


def build_chain(spec: Mapping[str, Any], stream: FeatureShape, *, out_dim: int) -> tuple[Any, Any]:
    """Projector and token reduction of one stream, each built for what the other returns."""

    def projector(source: FeatureShape) -> Any:
        return instantiate(
            spec["projector"],
            "projector",
            expect=(nn.Module, Projector),
            in_dim=source.dim,
            in_tokens=source.num_tokens,
            in_grid=source.grid,
            out_dim=out_dim,
        )

    def reduction(num_tokens: int, grid: Grid | None) -> Any:
        return instantiate(
            spec["reduction"], "reduction", expect=(nn.Module, TokenReduction), in_tokens=num_tokens, in_grid=grid
        )

    if reduces_first(spec):
        before = reduction(stream.num_tokens, stream.grid)
        return projector(FeatureShape(before.num_tokens, stream.dim, before.grid)), before
    own = projector(stream)
    return own, reduction(own.num_tokens, own.grid)


def shared_resolution(resolutions: Mapping[str, Resolution]) -> Resolution:
    """The first encoder's, which joins the views of all encoders again.

    Raises:
        UserError: another encoder divides images differently, so that its views show other parts of them.
    """
    (first, shared), *others = resolutions.items()
    for name, other in others:
        for key in [*shared.scheme, *other.scheme]:
            mine, theirs = shared.scheme.get(key, "-"), other.scheme.get(key, "-")
            if mine != theirs:
                raise UserError(
                    f"model.encoders.*.resolution: {first} and {name} must divide an image alike, but differ in {key}: "
                    f"{mine} and {theirs}; "
                    + ("set resolution.tile_size" if key == "tile_size" else "give them one resolution")
                )
    return shared


def build_resolution(name: str, node: Mapping[str, Any]) -> Any:
    """How images become this encoder's views; needs no torch."""
    mean = node.get("mean") or (0.5, 0.5, 0.5)
    return instantiate(
        node["resolution"],
        f"model.encoders.{name}.resolution",
        expect=Resolution,
        image_size=node["image_size"],
        mean=mean,
    )
