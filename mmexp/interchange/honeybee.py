"""Honeybee's released projectors (github.com/khanrc/honeybee) in our names.

The official keys stand under ``abstractor.`` in a whole checkpoint and alone in a projector's own file. The keys
themselves show which projector it is.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from mmexp.errors import UserError

PREFIX = "abstractor."
STREAM = "projector.0."
"""Where a model with one stream has its projector."""

Rules = list[tuple[str, str]]
"""Pattern of a whole official key, and our key; the first that matches is used."""

_SUFFIX = r"(weight|bias)"
_FRAME: Rules = [(r"pos_emb", "pos_emb"), (r"eos_tokens", "eos_tokens"), (rf"prenorm\.{_SUFFIX}", r"prenorm.\1")]
_RESAMPLER_PARTS = {
    "crossattention.attention.query": "attention.query",
    "crossattention.attention.key": "attention.key",
    "crossattention.attention.value": "attention.value",
    "crossattention.output.out_proj": "attention.out",
    "crossattention.output.norm2": "norm_ffn",
    "crossattention.output.mlp.w1": "ffn.gate",
    "crossattention.output.mlp.w2": "ffn.down",
    "crossattention.output.mlp.w3": "ffn.up",
    "crossattention.output.mlp.ffn_ln": "ffn.norm",
    "crossattention.norm1": "norm_queries",
    "crossattention.normk": "norm_features",
}
_D_ABSTRACTOR_PARTS = {
    "self_attn.q_proj": "self_attention.query",
    "self_attn.k_proj": "self_attention.key",
    "self_attn.v_proj": "self_attention.value",
    "self_attn.out_proj": "self_attention.out",
    "self_attn_layer_norm": "self_norm",
    "encoder_attn.sampling_offsets": "cross_attention.offsets",
    "encoder_attn.attention_weights": "cross_attention.weights",
    "encoder_attn.value_proj": "cross_attention.value",
    "encoder_attn.output_proj": "cross_attention.out",
    "encoder_attn_layer_norm": "cross_norm",
    "fc1": "ffn_in",
    "fc2": "ffn_out",
    "final_layer_norm": "ffn_norm",
}


def _layer_rules(official: str, parts: Mapping[str, str]) -> Rules:
    return [
        (rf"{official}\.(\d+)\.{re.escape(theirs)}\.{_SUFFIX}", rf"layers.\1.{ours}.\2")
        for theirs, ours in parts.items()
    ]


RULES: dict[str, Rules] = {
    "linear": [*_FRAME, (rf"net\.0\.{_SUFFIX}", r"linear.\1")],
    "mlp": [*_FRAME, (rf"net\.(\d+)\.{_SUFFIX}", r"layers.\1.\2")],
    "resampler": [
        (r"pos_emb", "pos_emb"),
        (r"vit_eos", "eos_tokens"),
        (r"query_tokens", "queries"),
        (rf"visual_input_fc\.{_SUFFIX}", r"input_proj.\1"),
        (rf"visual_output_fc\.{_SUFFIX}", r"output_proj.\1"),
        *_layer_rules(r"encoder\.layers", _RESAMPLER_PARTS),
    ],
    "c-abs": [
        *_FRAME,
        (rf"readout\.(\d+)\.{_SUFFIX}", r"readout.\1.\2"),
        # blocks b1, b2, ... before (net.0) and after (net.2) the pooling; ours count from 0, see _our_key
        (r"net\.0\.b(\d+)\.(.+)", r"before.\1.\2"),
        (r"net\.2\.b(\d+)\.(.+)", r"after.\1.\2"),
    ],
    "d-abs": [
        (r"v_pos_emb", "pos_emb"),
        (r"eos_tokens", "eos_tokens"),
        (r"reference_points", "reference_points"),
        (r"query_position_embeddings\.weight", "queries.weight"),
        (rf"input_proj\.0\.{_SUFFIX}", r"input_proj.\1"),
        (rf"output_proj\.{_SUFFIX}", r"output_proj.\1"),
        *_layer_rules("layers", _D_ABSTRACTOR_PARTS),
    ],
}


def projector_state_dict(official: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state of one of our projectors from an official state dict.

    Args:
        official: keys with or without ``abstractor.``; where any key has it, the others (encoder, LLM) are left out.

    Returns:
        What ``load_state_dict`` of ``linear``, an mlp, ``resampler``, ``c_abstractor`` or ``d_abstractor`` takes.
        The class token's place in old checkpoints' position embeddings is dropped.

    Raises:
        UserError: no projector, a projector with several feature levels, or a key that no projector has.
    """
    theirs = _without_prefix(official)
    kind = projector_kind(theirs)
    ours = {_our_key(key, kind): value for key, value in theirs.items()}
    if "pos_emb" in ours:
        ours["pos_emb"] = _without_class_token(ours["pos_emb"])
    return ours


class HoneybeeProjector:
    """The projector of a released checkpoint, for a model with one stream."""

    def tensors(self, checkpoint: Path) -> dict[str, torch.Tensor]:
        """Raises ``UserError``: see ``read_checkpoint`` and ``projector_state_dict``."""
        return {f"{STREAM}{name}": value for name, value in projector_state_dict(read_checkpoint(checkpoint)).items()}


def projector_kind(official: Mapping[str, torch.Tensor]) -> str:
    """Official ``projector_type`` (``mlp`` of one layer is called ``linear``) that has these keys, without prefix.

    Raises:
        UserError: none has, or the projector reads several feature levels.
    """
    if "level_emb" in official:
        raise UserError("honeybee checkpoint: a D-Abstractor over several feature levels; a stream here has one")
    if "query_tokens" in official:
        return "resampler"
    if "reference_points" in official:
        return "d-abs"
    if any(key.startswith("readout.") for key in official):
        return "c-abs"
    if "net.0.weight" in official:
        return "mlp" if any(re.match(r"net\.[1-9]", key) for key in official) else "linear"
    raise UserError(
        f"honeybee checkpoint: no projector among its {len(official)} keys ({', '.join(list(official)[:3])})"
    )


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """The official projector tensors of a ``.safetensors`` or ``.bin`` file, or of a folder of such shards.

    Raises:
        UserError: nothing there, or a file that is not a state dict.
    """
    shards = sorted([*path.glob("*.safetensors"), *path.glob("pytorch_model*.bin")]) if path.is_dir() else [path]
    if not shards or not all(shard.is_file() for shard in shards):
        raise UserError(f"{path}: no .safetensors or .bin file there")
    tensors: dict[str, torch.Tensor] = {}
    for shard in shards:
        # shard by shard, so that the LLM's weights are not all in memory at once
        tensors |= _projector_only(_read_shard(shard))
    return tensors


def _read_shard(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (
        Exception
    ) as error:  # torch and safetensors raise many kinds; all mean that the file is not what it should be
        raise UserError(f"{path}: cannot be read as weights ({error})"[:300].splitlines()[0]) from error


def _projector_only(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    foreign = ("vision_model.", "language_model.")
    return {key: value for key, value in tensors.items() if not key.startswith(foreign)}


def _without_prefix(official: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if not any(key.startswith(PREFIX) for key in official):
        return dict(official)
    return {key.removeprefix(PREFIX): value for key, value in official.items() if key.startswith(PREFIX)}


def _our_key(key: str, kind: str) -> str:
    for pattern, ours in RULES[kind]:
        match = re.fullmatch(pattern, key)
        if match is None:
            continue
        if kind == "c-abs" and key.startswith("net."):
            side, number, rest = match.expand(ours).split(".", 2)
            return f"{side}.{int(number) - 1}.{rest}"
        return match.expand(ours)
    raise UserError(f"honeybee checkpoint: '{key}' belongs to no {kind} projector")


def _without_class_token(pos_emb: torch.Tensor) -> torch.Tensor:
    """Old checkpoints have (1, 1 + N, D), N a square, with the class token's place first."""
    count = pos_emb.shape[1]
    if math.isqrt(count) ** 2 != count and math.isqrt(count - 1) ** 2 == count - 1:
        return pos_emb[:, 1:]
    return pos_emb
