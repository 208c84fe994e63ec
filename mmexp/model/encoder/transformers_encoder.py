"""Vision towers of transformers: CLIP, SigLIP, DINOv2 and others by class name."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import nn

from mmexp.errors import UserError, nearest
from mmexp.interfaces import FeatureShape
from mmexp.model.encoder.block_encoder import BlockEncoder
from mmexp.model.encoder.weights import load_encoder_weights


class TransformersEncoder(BlockEncoder):
    """A vision model of transformers, built from its config so that planning needs no hub.

    Args:
        model_class: class name in transformers (``CLIPVisionModel``, ``SiglipVisionModel``, ``Dinov2Model``).
        config: arguments of the class's config; must describe the checkpoint.
        checkpoint: hub id or local folder that ``weights: hub`` loads.
        weights: ``hub``, ``random`` or a ``.safetensors`` file.
        image_size: side of the square input in pixels; another one than the config's interpolates the position
            embedding inside the network (``interpolate_pos_encoding``).
        num_prefix_tokens: class and register tokens in front of the patches.
        mean, std: normalisation of each channel, for pixels in 0..1.
        final_norm: apply the final norm to the deepest tap (``last_hidden_state`` of SigLIP and DINOv2).
        load: False builds without reading weights.
    """

    layout = "tokens"

    def __init__(
        self,
        *,
        model_class: str,
        config: Mapping[str, Any],
        checkpoint: str | None,
        weights: str,
        image_size: int,
        num_prefix_tokens: int,
        mean: Sequence[float],
        std: Sequence[float],
        final_norm: bool,
        load: bool = True,
    ) -> None:
        super().__init__(mean=mean, std=std)
        cls: Any = vision_class(model_class)
        self.network = cls(cls.config_class(**config))
        self.num_prefix_tokens = num_prefix_tokens
        self.image_size = image_size
        self.depth = len(self.blocks())
        self.norm = final_norm_of(self.network, model_class) if final_norm else nn.Identity()
        if load:
            name = checkpoint or model_class
            load_encoder_weights(self.network, weights, name, lambda: cls.from_pretrained(name).state_dict())

    def blocks(self) -> nn.ModuleList:
        return block_list(self.network)

    def run(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.image_size != self.network.config.image_size:
            return self.network(pixels, interpolate_pos_encoding=True)
        return self.network(pixels)

    def final(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.norm(tokens)

    def shape(self, tap: int) -> FeatureShape:
        side = self.image_size // self.network.config.patch_size
        return FeatureShape(side * side, self.network.config.hidden_size, (side, side))


def vision_class(name: str) -> type[transformers.PreTrainedModel]:
    """The class of that name. Raises ``UserError`` with the nearest name."""
    cls = getattr(transformers, name, None)
    if cls is None:
        known = [option for option in dir(transformers) if "Vision" in option or "Dino" in option]
        raise UserError(f"model_class: transformers has no '{name}'; {nearest(name, known)}")
    return cls


def block_list(network: nn.Module) -> nn.ModuleList:
    """The blocks of a tower: its longest list of modules."""
    return max((module for module in network.modules() if isinstance(module, nn.ModuleList)), key=len)


def final_norm_of(network: nn.Module, model_class: str) -> nn.Module:
    """The norm that makes ``last_hidden_state``. Raises ``UserError`` where there is none over the tokens."""
    for name, module in network.named_modules():
        if name.split(".")[-1] in ("post_layernorm", "layernorm"):
            return module
    raise UserError(f"final_norm: {model_class} has no final norm over its tokens")
