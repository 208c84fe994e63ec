"""The composed multimodal LLM: visual tokens take the places of their placeholders in the LLM's input."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from mmexp.errors import UserError
from mmexp.instantiate import instantiate
from mmexp.interfaces import IGNORE_INDEX, IMAGE_TOKEN_ID, Batch, ImageBatch
from mmexp.model.attention import additive_mask, allowed
from mmexp.model.llm.causal_lm import CausalLM
from mmexp.model.visual import VisionSide


def public_name(name: str) -> str:
    """A parameter's name without the inner ``vision.``, and the same whether or not LoRA wraps its layer."""
    return name.removeprefix("vision.").replace(".base_layer.", ".")


class Mllm(nn.Module):
    """vision side + LLM, composed from the config node ``model``; an LLM alone where the node has no ``encoders``.

    Attributes:
        has_vision: False for an LLM alone, which has no attribute ``vision``.

    Parameter names, as ``trainable`` patterns see them, begin with ``encoders.<name>``, ``feature_layers.<name>``,
    ``fusion``, ``projector``, ``reduction``, ``assembler`` or ``llm``.
    """

    vision: VisionSide

    def __init__(self, spec: Mapping[str, Any], *, load: bool = True) -> None:
        super().__init__()
        self.llm = instantiate(spec["llm"], "llm", expect=CausalLM, load=load)
        # A node with nothing but an LLM is the blind baseline; an empty list of encoders is a mistake.
        self.has_vision = "encoders" in spec
        if self.has_vision:
            self.vision = VisionSide(spec, out_dim=self.llm.dim, load=load)

    def named_trainables(self) -> list[tuple[str, nn.Parameter]]:
        """Parameters under the names that users see, see ``public_name``."""
        return [(public_name(name), parameter) for name, parameter in self.named_parameters()]

    def visual_tokens(self, images: ImageBatch) -> torch.Tensor:
        """(all visual tokens of the batch, D), image after image."""
        return torch.cat(self.vision(images))

    def merge(self, input_ids: torch.Tensor, images: ImageBatch | None) -> torch.Tensor:
        """Token embeddings with the visual tokens at their placeholders: (B, T) -> (B, T, D).

        Raises:
            ValueError: placeholders and visual tokens differ in number; scattering would silently shift images.
        """
        place = input_ids == IMAGE_TOKEN_ID
        embeds = self.llm.embed(input_ids.masked_fill(place, 0))
        if images is None:
            return embeds
        visual = self.visual_tokens(images).to(embeds.dtype)
        placeholders = int(place.sum())
        if placeholders != len(visual):
            raise ValueError(f"{placeholders} placeholders but {len(visual)} visual tokens in the batch")
        return embeds.masked_scatter(place[..., None], visual)

    def logits(self, batch: Batch, keep: torch.Tensor | int = 0) -> torch.Tensor:
        """(B, T_kept, V) at the columns ``keep`` (0: all)."""
        embeds = self.merge(batch.input_ids, batch.images)
        return self.llm(embeds, self.attention_mask(batch, embeds.dtype), batch.position_ids, keep=keep)

    def attention_mask(self, batch: Batch, dtype: torch.dtype) -> torch.Tensor:
        """(B, T) for rows of one conversation, additive (B, 1, T, T) for packed rows."""
        if batch.num_conversations <= len(batch.input_ids):
            return (batch.segment_ids >= 0).long()
        if self.llm.attention not in ("sdpa", "eager"):
            raise UserError(f"llm.attention: packed rows need 'sdpa' or 'eager', not '{self.llm.attention}'")
        return additive_mask(allowed(batch.segment_ids, batch.prefix_ids, batch.segment_ids), dtype)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Next-token cross-entropy summed over the valid positions, in float32; the caller normalises over its window.

        Logits are computed only in columns where some row has a label.
        """
        targets = batch.labels[:, 1:]
        columns = (targets != IGNORE_INDEX).any(dim=0).nonzero()[:, 0]
        logits = self.logits(batch, keep=columns)
        targets = targets[:, columns]
        valid = targets != IGNORE_INDEX
        loss_sum = functional.cross_entropy(logits[valid].float(), targets[valid], reduction="sum")
        if batch.images is None and self.has_vision and torch.is_grad_enabled():
            loss_sum = loss_sum + self._untouched_vision()
        return loss_sum

    def _untouched_vision(self) -> torch.Tensor:
        """Zero that depends on every trained vision parameter, so that ranks with text only still reduce them."""
        trained = [parameter.sum() for parameter in self.vision.parameters() if parameter.requires_grad]
        return 0.0 * torch.stack(trained).sum() if trained else torch.zeros(())
