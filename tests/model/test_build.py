"""Weights of earlier stages: overlaid by name, also under LoRA; what does not fit is an error, never left out."""

from pathlib import Path

import pytest
import torch

from mmexp.errors import UserError
from mmexp.model.build import load_trained, save_trained
from mmexp.model.mllm import Mllm
from tests.tiny import mlp_node, tiny_spec

LORA = {"r": 2, "alpha": 4, "dropout": 0.0, "targets": ["q_proj", "v_proj"]}


def save_llm(folder: Path) -> Mllm:
    torch.manual_seed(1)
    model = Mllm(tiny_spec(), load=False)
    folder.mkdir()
    save_trained(model, folder, None, [name for name, _ in model.named_trainables() if name.startswith("llm")])
    return model


def test_a_fully_trained_llm_loads_into_one_with_lora(tmp_path: Path) -> None:
    source = save_llm(tmp_path / "stage")
    spec = tiny_spec()
    spec["llm"]["lora"] = LORA
    target = Mllm(spec, load=False)
    load_trained(target, tmp_path / "stage")
    name = next(name for name, _ in source.named_trainables() if "q_proj" in name)
    assert torch.equal(dict(target.named_trainables())[name], dict(source.named_trainables())[name])


def test_weights_that_do_not_fit_are_refused_and_absent_parts_left_out(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Mllm(tiny_spec(), load=False)
    (tmp_path / "stage").mkdir()
    names = [name for name, _ in model.named_trainables() if name.startswith("projector")]
    save_trained(model, tmp_path / "stage", None, names)
    load_trained(Mllm({"llm": tiny_spec()["llm"]}, load=False), tmp_path / "stage")
    other = Mllm(tiny_spec(projector=mlp_node(depth=1)), load=False)
    with pytest.raises(UserError, match=r"init_from: stage trained projector\.0\.layers\.2"):
        load_trained(other, tmp_path / "stage")
