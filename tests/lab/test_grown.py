"""The larger language model: at first it says exactly what the smaller one says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from mmexp.errors import UserError
from mmexp.lab.grown_stage import GrownLanguageModelStage
from mmexp.lab.tokenizer import build_tokenizer
from tests.lab.making import stage_node
from tests.lab.test_stages import small


def grown(start: Path, **architecture: int) -> Any:
    node = stage_node("lab_large")
    return GrownLanguageModelStage(
        **{**node, "start": str(start), "architecture": {**node["architecture"], **architecture}}
    )


def test_new_blocks_change_nothing_at_first_and_learn(tmp_path: Path) -> None:
    small("lab_base", steps=2).run(tmp_path, {})
    smaller = AutoModelForCausalLM.from_pretrained(tmp_path)
    stage = grown(tmp_path)
    larger = stage._model(build_tokenizer(stage.spec, stage.templates.values())).eval()
    assert larger.config.num_hidden_layers > smaller.config.num_hidden_layers
    ids = torch.arange(20, 40)[None]
    assert torch.equal(larger(ids).logits, smaller(ids).logits)
    larger(ids, labels=ids).loss.backward()
    assert larger.model.layers[-1].self_attn.o_proj.weight.grad.abs().sum() > 0


def test_another_width_is_refused(tmp_path: Path) -> None:
    small("lab_base", steps=2).run(tmp_path, {})
    stage = grown(tmp_path, hidden_size=64)
    with pytest.raises(UserError, match="only num_hidden_layers may differ"):
        stage._model(build_tokenizer(stage.spec, stage.templates.values()))
