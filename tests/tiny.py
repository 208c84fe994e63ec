"""Tiny random-weight models of the real classes, shared by tests."""

import copy
from typing import Any

import torch

from mmexp.interfaces import IGNORE_INDEX, IMAGE_TOKEN_ID, Batch, ImageBatch

VISION = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 192,
    "vocab_size": 300,
    "max_position_embeddings": 512,
}
NUM_VISUAL = 16


def clip_node(**changes: Any) -> dict[str, Any]:
    node = {
        "_target_": "mmexp.encoder.transformers_encoder.TransformersEncoder",
        "model_class": "CLIPVisionModel",
        "config": dict(VISION),
        "checkpoint": None,
        "weights": "random",
        "image_size": 32,
        "num_prefix_tokens": 1,
        "mean": [0.48, 0.46, 0.41],
        "std": [0.27, 0.26, 0.28],
        "final_norm": False,
        "resolution": {"_target_": "mmexp.resolution.resize.Resize"},
        "feature_layers": {"_target_": "mmexp.feature_layers.single.SingleLayer", "layer": -2},
    }
    return {**node, **changes}


def convnext_node(**changes: Any) -> dict[str, Any]:
    node = {
        "_target_": "mmexp.encoder.timm_encoder.TimmEncoder",
        "model_name": "convnext_atto",
        "model_args": {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]},
        "weights": "random",
        "image_size": 128,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "final_norm": False,
        "resolution": {"_target_": "mmexp.resolution.resize.Resize"},
        "feature_layers": {"_target_": "mmexp.feature_layers.single.SingleLayer", "layer": -1},
    }
    return {**node, **changes}


def tiny_spec(**changes: Any) -> dict[str, Any]:
    """The config node ``model`` of a tiny LLaVA; ``changes`` replace its entries."""
    spec = {
        "encoders": {"clip": clip_node()},
        "fusion": {"_target_": "mmexp.fusion.none.NoFusion"},
        "projector": {"_target_": "mmexp.projector.mlp.MlpProjector", "depth": 2, "activation": "gelu"},
        "reduction": {"_target_": "mmexp.reduction.none.NoReduction"},
        "llm": {
            "_target_": "mmexp.llm.causal_lm.CausalLM",
            "checkpoint": "none",
            "config": {"model_type": "llama", **TEXT},
            "attention": "sdpa",
            "dtype": "float32",
            "gradient_checkpointing": False,
        },
    }
    return copy.deepcopy({**spec, **changes})


def image_batch(count: int, sides: dict[str, int], seed: int = 0) -> ImageBatch:
    """``count`` single-view images of random pixels for encoders of these input sides."""
    generator = torch.Generator().manual_seed(seed)
    views = {
        name: torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
        for name, side in sides.items()
    }
    return ImageBatch(views=views, view_counts=[1] * count, sizes=[(32, 32)] * count)


def random_batch(rows: int = 3, length: int = 40, num_visual: int = NUM_VISUAL, seed: int = 0) -> Batch:
    """Right-padded rows of one conversation: 3 text positions, the image, question, answer."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 290, (rows, length), generator=generator)
    ids[:, 3 : 3 + num_visual] = IMAGE_TOKEN_ID
    labels = ids.clone()
    labels[:, : num_visual + 8] = IGNORE_INDEX
    segments = torch.zeros(rows, length, dtype=torch.long)
    for row in range(rows):
        end = length - 3 * row
        segments[row, end:], labels[row, end:] = -1, IGNORE_INDEX
    return Batch(
        input_ids=ids,
        labels=labels,
        position_ids=torch.arange(length).expand(rows, length).clone(),
        segment_ids=segments,
        prefix_ids=segments.clone(),
        images=image_batch(rows, {"clip": 32}, seed),
        num_conversations=rows,
    )
