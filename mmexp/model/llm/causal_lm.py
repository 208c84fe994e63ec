"""Any causal language model of transformers behind one small interface."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.cache_utils import Cache

from mmexp.errors import UserError
from mmexp.hub import from_hub
from mmexp.model.llm.lora import add_lora, merge_lora

KEY = "llm.checkpoint"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class CausalLM(nn.Module):
    """A causal LM and its tokenizer.

    Args:
        checkpoint: hub id or folder with config, safetensors and tokenizer.
        config: arguments of ``AutoConfig.for_model`` (with ``model_type``), so that a plan needs no hub; None reads
            the checkpoint's own. Where both are given, they must agree.
        attention: ``sdpa``, ``eager`` or ``flash_attention_2`` (the last without packing).
        dtype: ``float32``, ``bfloat16`` or ``float16``, of the weights in memory.
        gradient_checkpointing: recompute the blocks' activations in the backward pass.
        lora: settings of low-rank adapters, see ``add_lora``; None for no adapters.
        load: False builds from the config without reading weights.
    """

    def __init__(
        self,
        *,
        checkpoint: str,
        config: Mapping[str, Any] | None,
        attention: str,
        dtype: str,
        gradient_checkpointing: bool,
        lora: Mapping[str, Any] | None = None,
        load: bool = True,
    ) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise UserError(f"llm.dtype: unknown '{dtype}'; choose from: {', '.join(DTYPES)}")
        self.checkpoint = checkpoint
        self.attention = attention
        arguments = {"dtype": DTYPES[dtype], "attn_implementation": attention}
        if load:
            self.network = from_hub(
                checkpoint,
                KEY,
                lambda: AutoModelForCausalLM.from_pretrained(checkpoint, use_safetensors=True, **arguments),
            )
            _check_config(self.network.config, config, checkpoint)
        else:
            self.network = AutoModelForCausalLM.from_config(lm_config(checkpoint, config), **arguments)
        if lora is not None:
            add_lora(self.network, lora)
        if gradient_checkpointing:
            self.network.activation_checkpointing_enable({"use_reentrant": False})

    @property
    def dim(self) -> int:
        """Width D of the embeddings."""
        return self.network.config.get_text_config().hidden_size

    @property
    def context_length(self) -> int:
        """Positions that the LLM was trained for."""
        return self.network.config.get_text_config().max_position_embeddings

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.checkpoint)

    def merge_lora(self) -> None:
        """Make the adapters part of the weights, for export; without adapters nothing changes."""
        merge_lora(self.network)

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(B, T) -> (B, T, D)."""
        return self.network.get_input_embeddings()(input_ids)

    def forward(
        self,
        embeds: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor,
        *,
        cache: Cache | None = None,
        keep: torch.Tensor | int = 0,
    ) -> torch.Tensor:
        """(B, T, D) -> logits (B, T_kept, V).

        ``attention_mask`` is (B, T) with 1 for real positions, or additive (B, 1, T, T_all). ``keep`` are the
        columns whose logits are wanted: their indices, the last n, or 0 for all.
        """
        return self.network(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=keep,
        ).logits


def load_tokenizer(checkpoint: str) -> PreTrainedTokenizerBase:
    """Tokenizer of a folder or hub id. Raises ``UserError`` when it cannot be loaded."""
    return from_hub(checkpoint, KEY, lambda: AutoTokenizer.from_pretrained(checkpoint))


def lm_config(checkpoint: str, config: Mapping[str, Any] | None) -> Any:
    """The transformers config: from the YAML where it is given, else of the checkpoint."""
    if config is None:
        return from_hub(checkpoint, KEY, lambda: AutoConfig.from_pretrained(checkpoint))
    arguments = dict(config)
    return AutoConfig.for_model(arguments.pop("model_type"), **arguments)


def _check_config(actual: Any, expected: Mapping[str, Any] | None, checkpoint: str) -> None:
    for key, value in (expected or {}).items():
        if getattr(actual, key, value) != value:
            raise UserError(f"llm.config.{key}: {value}, but the checkpoint '{checkpoint}' has {getattr(actual, key)}")
