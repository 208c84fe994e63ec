"""Tiny random-weight models of the real classes, shared by tests."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Regex

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
COSINE = {"_target_": "mmexp.training.schedule.Cosine"}


def clip_node(**changes: Any) -> dict[str, Any]:
    node = {
        "_target_": "mmexp.model.encoder.transformers_encoder.TransformersEncoder",
        "model_class": "CLIPVisionModel",
        "config": dict(VISION),
        "checkpoint": None,
        "weights": "random",
        "image_size": 32,
        "num_prefix_tokens": 1,
        "mean": [0.48, 0.46, 0.41],
        "std": [0.27, 0.26, 0.28],
        "final_norm": False,
        "resolution": {"_target_": "mmexp.model.resolution.resize.Resize"},
        "feature_layers": {"_target_": "mmexp.model.feature_layers.single.SingleLayer", "layer": -2},
    }
    return {**node, **changes}


def convnext_node(**changes: Any) -> dict[str, Any]:
    node = {
        "_target_": "mmexp.model.encoder.timm_encoder.TimmEncoder",
        "model_name": "convnext_atto",
        "model_args": {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]},
        "weights": "random",
        "image_size": 128,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "final_norm": False,
        "resolution": {"_target_": "mmexp.model.resolution.resize.Resize"},
        "feature_layers": {"_target_": "mmexp.model.feature_layers.single.SingleLayer", "layer": -1},
    }
    return {**node, **changes}


def mlp_node(**changes: Any) -> dict[str, Any]:
    """The connector of LLaVA-1.5, ``projector=mlp2x_gelu``."""
    node = {
        "_target_": "mmexp.model.projector.mlp.MlpProjector",
        "depth": 2,
        "activation": "gelu",
        "prenorm": False,
        "pos_emb": False,
        "num_eos_tokens": 0,
        "init_std": None,
        "gradient_checkpointing": False,
    }
    return {**node, **changes}


def tiny_spec(**changes: Any) -> dict[str, Any]:
    """The config node ``model`` of a tiny LLaVA; ``changes`` replace its entries."""
    spec = {
        "encoders": {"clip": clip_node()},
        "fusion": {"_target_": "mmexp.model.fusion.none.NoFusion"},
        "projector": mlp_node(),
        "reduction": {"_target_": "mmexp.model.reduction.none.NoReduction"},
        "llm": {
            "_target_": "mmexp.model.llm.causal_lm.CausalLM",
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


WORDS = "red green blue square circle triangle which shape is what color where yes no left right a the".split()


def save_checkpoint(folder: Path) -> str:
    """A tiny Llama with a word-level tokenizer that knows Vicuna's template; returns its path."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>"]
    words = [*WORDS, *map(str, range(10)), "USER:", "ASSISTANT:", "\n", "?", "."]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate([*special, *words])}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed")
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(["\n", "?", "."])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**TEXT)).save_pretrained(folder)
    return str(folder)


def save_dataset(folder: Path, count: int, seed: int = 0) -> dict[str, Any]:
    """``count`` images of one colour with two questions each, in LLaVA's format; returns the node ``datasets``."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for index in range(count):
        color = int(generator.integers(3))
        pixels = np.zeros((32, 32, 3), dtype=np.uint8)
        pixels[..., color] = generator.integers(128, 256, (32, 32))
        Image.fromarray(pixels).save(folder / f"{index}.png")
        turns = [("what color is the square ?", WORDS[color]), ("is the square red ?", "yes" if color == 0 else "no")]
        conversations = [
            {"from": role, "value": text}
            for number, pair in enumerate(turns)
            for role, text in zip(
                ("human", "gpt"), (("<image>\n" if number == 0 else "") + pair[0], pair[1]), strict=True
            )
        ]
        records.append({"id": str(index), "image": f"{index}.png", "conversations": conversations})
    (folder / "data.json").write_text(json.dumps(records))
    source = {
        "_target_": "mmexp.data.sources.llava_json.LlavaJson",
        "annotations": str(folder / "data.json"),
        "image_folder": str(folder),
    }
    return {"colors": source}


TEMPLATE = {
    "_target_": "mmexp.data.template.Template",
    "bos": True,
    "system": None,
    "opening": "",
    "user": "USER: {image}{question} ASSISTANT:",
    "image_separator": "\n",
    "answer": " {answer}</s>",
    "closing": "",
    "stop": "</s>",
    "format_prompt": "none",
    "format_texts": {},
}


def data_node(datasets: dict[str, Any], **batching: Any) -> dict[str, Any]:
    """The node ``data`` of a training stage."""
    defaults = {
        "batch_size": 8,
        "packing": "none",
        "row_length": None,
        "max_length": 128,
        "group_by_modality_length": False,
        "max_bad_samples": 0,
    }
    return {
        "datasets": datasets,
        "template": dict(TEMPLATE),
        "turns": {"_target_": "mmexp.data.turns.SingleTurn"},
        "balance": {"_target_": "mmexp.data.balance.BySize"},
        "batching": {**defaults, **batching},
        "use_images": True,
    }


def runtime_node(folder: Path, **changes: Any) -> dict[str, Any]:
    """The node ``runtime`` of a stage."""
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "num_nodes": 1,
        "strategy": "auto",
        "micro_batch_size": 8,
        "eval_batch_size": 8,
        "num_workers": 0,
        "checkpoint_every_steps": 2,
        "log_every_steps": 1,
        "feature_cache": False,
        "cache_dir": str(folder / "cache"),
        "feature_cache_bytes": 1e9,
        "data_cache_bytes": 1e8,
        "logger": {"loggers": {}},
    }
    return {**defaults, **changes}
