"""An imported projector is a stage to go on from."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mmexp.cli.import_weights import main
from mmexp.errors import UserError
from mmexp.model.build import load_trained
from mmexp.model.mllm import Mllm
from tests.tiny import tiny_spec


def test_a_released_projector_is_loaded_where_it_belongs(tmp_path: Path) -> None:
    linear = {
        "_target_": "mmexp.model.projector.linear.LinearProjector",
        "prenorm": False,
        "pos_emb": False,
        "num_eos_tokens": 0,
        "init_std": None,
        "gradient_checkpointing": False,
    }
    model = Mllm(tiny_spec(projector=linear), load=False)
    ours = dict(model.named_trainables())
    before = ours["llm.network.lm_head.weight"].clone()
    weight = torch.randn_like(ours["projector.0.linear.weight"])
    bias = torch.randn_like(ours["projector.0.linear.bias"])
    official = {
        "abstractor.net.0.weight": weight,
        "abstractor.net.0.bias": bias,
        "language_model.lm_head.weight": torch.zeros(2, 2),
    }
    save_file(official, tmp_path / "model.safetensors")
    out = tmp_path / "imported"
    assert main(["honeybee", str(tmp_path / "model.safetensors"), str(out)]) == 0
    load_trained(model, out)
    torch.testing.assert_close(ours["projector.0.linear.weight"], weight, rtol=0, atol=0)
    torch.testing.assert_close(ours["projector.0.linear.bias"], bias, rtol=0, atol=0)
    torch.testing.assert_close(ours["llm.network.lm_head.weight"], before, rtol=0, atol=0)
    with pytest.raises(UserError, match="imported: is there already"):
        main(["honeybee", str(tmp_path / "model.safetensors"), str(out)])


def test_mistakes_are_named(tmp_path: Path) -> None:
    for arguments, message in (
        (["honeybe", "a", "b"], "no importer 'honeybe'; did you mean 'honeybee'"),
        (["honeybee", "a"], "NAME CKPT OUT are needed"),
        (["honeybee", str(tmp_path / "none"), str(tmp_path / "out")], "no .safetensors or .bin file there"),
    ):
        with pytest.raises(UserError, match=message):
            main(arguments)
    assert not (tmp_path / "out").exists()
