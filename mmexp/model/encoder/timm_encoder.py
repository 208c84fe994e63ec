"""Any timm network with blocks or stages: ViT, DINOv2, SigLIP, EVA-02, SAM, ConvNeXt, InternViT.

Depths count as in transformers' ``hidden_states``: timm's block k is tap k + 1 (papers/encoders.md, 3.2). No norm
is applied to a tap, except with ``final_norm`` to the deepest one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import nn

from mmexp.errors import UserError, nearest
from mmexp.interfaces import FeatureShape
from mmexp.model.encoder.block_encoder import BlockEncoder
from mmexp.model.encoder.weights import load_encoder_weights


class TimmEncoder(BlockEncoder):
    """A timm model by id.

    Args:
        model_name: timm id, with its tag where weights come from the hub.
        model_args: further arguments of ``timm.create_model`` (``img_size``, ``embed_dim``, ...).
        weights: a ``.safetensors`` file of timm's state dict, ``hub`` (timm's own weights for the id) or ``random``.
        image_size: side of the square input in pixels; for another one than the weights' the position embedding is
            resampled once, when they are loaded.
        mean, std: normalisation of each channel, for pixels in 0..1.
        final_norm: apply the network's final norm to the deepest tap.
        load: False builds without reading weights (planning, or weights that come from a stage).
    """

    def __init__(
        self,
        *,
        model_name: str,
        model_args: Mapping[str, Any],
        weights: str,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        final_norm: bool,
        load: bool = True,
    ) -> None:
        super().__init__(mean=mean, std=std)
        self.network = create_network(model_name, dict(model_args), image_size)
        self.image_size = image_size
        self.final_norm = final_norm
        self.depth = len(self.blocks())
        self._set_layout()
        if load:
            fetch = self._hub_state(model_name, model_args)
            load_encoder_weights(self.network, weights, f"timm/{model_name}", fetch, self._resized)

    def blocks(self) -> nn.ModuleList | nn.Sequential:
        return self.network.stages if hasattr(self.network, "stages") else self.network.blocks

    def run(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network.forward_features(pixels)

    def final(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.network.norm(tokens) if self.final_norm else tokens

    def shape(self, tap: int) -> FeatureShape:
        if self.layout == "channels_first":
            info = self.network.feature_info[max(tap, 1) - 1]
            stem_reduction = self.network.feature_info[0]["reduction"]
            side = self.image_size // (info["reduction"] if tap else stem_reduction)
            return FeatureShape(side * side, info["num_chs"], (side, side))
        rows, columns = self.network.patch_embed.grid_size
        return FeatureShape(rows * columns, self.network.embed_dim, (rows, columns))

    def _hub_state(self, model_name: str, model_args: Mapping[str, Any]) -> Callable[[], dict[str, torch.Tensor]]:
        """timm's own weights for the id, its position embedding brought to this size by timm."""
        return lambda: create_network(model_name, dict(model_args), self.image_size, pretrained=True).state_dict()

    def _resized(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A state dict of another input size: its position embedding resampled as timm does when it loads."""
        old, new = state.get("pos_embed"), getattr(self.network, "pos_embed", None)
        if old is None or new is None or old.dim() != 3 or old.shape == new.shape:
            return state
        prefix = 0 if getattr(self.network, "no_embed_class", False) else self.num_prefix_tokens
        size = list(self.network.patch_embed.grid_size)
        return {**state, "pos_embed": resample_abs_pos_embed(old, new_size=size, num_prefix_tokens=prefix)}

    def _set_layout(self) -> None:
        self.num_prefix_tokens = getattr(self.network, "num_prefix_tokens", 0)
        if hasattr(self.network, "stages"):
            self.layout = "channels_first"
        elif type(self.network).__name__ == "VisionTransformerSAM":
            self.layout, self.num_prefix_tokens = "channels_last", 0
        else:
            self.layout = "tokens"
        if self.final_norm and not isinstance(getattr(self.network, "norm", None), nn.Module):
            raise UserError(f"final_norm: {type(self.network).__name__} has no final norm over its tokens")


def create_network(
    model_name: str, model_args: dict[str, Any], image_size: int, *, pretrained: bool = False
) -> nn.Module:
    """The bare timm network without classifier. Raises ``UserError`` for an unknown id or unknown arguments."""
    architecture = model_name.split(".")[0]
    if not timm.is_model(architecture):
        raise UserError(f"model_name: timm has no '{architecture}'; {nearest(architecture, timm.list_models())}")
    if "img_size" not in model_args and architecture.startswith(("vit", "eva", "samvit")):
        model_args["img_size"] = image_size
    try:
        return timm.create_model(model_name, pretrained=pretrained, num_classes=0, **model_args)
    except (TypeError, AssertionError, RuntimeError) as error:
        raise UserError(f"model_args: timm cannot build '{model_name}' with {model_args}: {error}") from error
