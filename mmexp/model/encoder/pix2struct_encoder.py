"""Pix2Struct's vision encoder, with its patches made on the device.

Same patches as transformers' ``Pix2StructImageProcessorPil`` (the torch processor divides by n - 1 instead) for a
square image whose side is a multiple of the patch size: standardised per image (not per channel), patches flattened as
(row, column, channel), then row and column numbers from 1. Padding patches do not arise, so there is no mask.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import Pix2StructVisionConfig, Pix2StructVisionModel

from mmexp.errors import UserError
from mmexp.interfaces import FeatureShape
from mmexp.model.encoder.block_encoder import BlockEncoder
from mmexp.model.encoder.weights import load_encoder_weights


class Pix2StructEncoder(BlockEncoder):
    """The vision half of Pix2Struct.

    Args:
        config: arguments of ``Pix2StructVisionConfig``.
        checkpoint: hub id or local folder that ``weights: hub`` loads.
        weights: ``hub``, ``random`` or a ``.safetensors`` file.
        image_size: side of the square input in pixels, a multiple of the patch size.
        final_norm: apply the final norm to the deepest tap (``last_hidden_state``).
        load: False builds without reading weights.
    """

    layout = "tokens"
    num_prefix_tokens = 0

    def __init__(
        self,
        *,
        config: Mapping[str, Any],
        checkpoint: str | None,
        weights: str,
        image_size: int,
        final_norm: bool,
        load: bool = True,
    ) -> None:
        super().__init__(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        self.network = Pix2StructVisionModel(Pix2StructVisionConfig(**config))
        self.patch_size = self.network.config.patch_size
        if image_size % self.patch_size:
            raise UserError(f"image_size: {image_size} is not a multiple of Pix2Struct's patch size {self.patch_size}")
        self.image_size = image_size
        self.depth = len(self.blocks())
        self.final_norm = final_norm
        if load:
            name = checkpoint or "pix2struct"
            load_encoder_weights(
                self.network, weights, name, lambda: Pix2StructVisionModel.from_pretrained(name).state_dict()
            )

    def blocks(self) -> nn.ModuleList:
        return self.network.encoder.layer

    def normalize(self, views: torch.Tensor) -> torch.Tensor:
        """Per-image standardisation over all pixels and channels; the deviation is at least 1/sqrt(pixels * 3)."""
        pixels = views.to(self.mean.dtype)
        count = pixels[0].numel()
        mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
        std = pixels.std(dim=(1, 2, 3), keepdim=True, unbiased=False).clamp(min=count**-0.5)
        return (pixels - mean) / std

    def run(self, pixels: torch.Tensor) -> torch.Tensor:
        # No mask: all patches are real, and the network's own check of a mask would wait for the GPU.
        return self.network.encoder(self.network.embeddings(self.flatten_patches(pixels)))

    def flatten_patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """(W, 3, H, H) -> (W, N, 2 + patch * patch * 3): row and column number from 1, then the patch."""
        size = self.patch_size
        side = pixels.shape[-1] // size
        patches = pixels.unflatten(3, (side, size)).unflatten(2, (side, size))  # W, 3, row, y, column, x
        patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        number = torch.arange(1, side + 1, device=pixels.device, dtype=pixels.dtype)
        places = torch.stack(torch.meshgrid(number, number, indexing="ij"), dim=-1).view(1, side * side, 2)
        return torch.cat([places.expand(len(pixels), -1, -1), patches], dim=-1)

    def final(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.network.layernorm(tokens) if self.final_norm else tokens

    def shape(self, tap: int) -> FeatureShape:
        side = self.image_size // self.patch_size
        return FeatureShape(side * side, self.network.config.hidden_size, (side, side))
