"""Every option of the group ``projector`` keeps the contract; a new YAML file is picked up by itself."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensorMode

from mmexp.interfaces import FeatureMap
from tests.model.projector.nodes import GRID, IN_DIM, NAMES, OUT_DIM, SIZES, build, features, node, roughened

FRAMED = {"prenorm": True, "pos_emb": True, "num_eos_tokens": 2}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("extra", [{}, FRAMED], ids=["plain", "framed"])
def test_declared_shape_is_true(name: str, extra: dict) -> None:
    projector = build(name, **extra).eval()
    out = projector(features(views=3))
    tokens = node(name).get("num_tokens", SIZES["all"]) + extra.get("num_eos_tokens", 0)
    assert projector.num_tokens == tokens
    assert out.tokens.shape == (3, tokens, projector.out_dim) == (3, tokens, OUT_DIM)
    assert out.grid == projector.grid
    assert out.grid is None or out.grid[0] * out.grid[1] == tokens


@pytest.mark.parametrize("name", NAMES)
def test_shape_is_known_without_memory(name: str) -> None:
    with FakeTensorMode():
        projector = build(name)
        out = projector(FeatureMap(torch.empty(2, SIZES["all"], IN_DIM), GRID))
    assert out.tokens.shape == (2, projector.num_tokens, OUT_DIM)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("extra", [{}, FRAMED], ids=["plain", "framed"])
def test_every_parameter_gets_a_gradient(name: str, extra: dict) -> None:
    projector = roughened(build(name, **extra)).train()
    out = projector(features()).tokens
    (out * torch.randn_like(out)).sum().backward()
    without = [key for key, parameter in projector.named_parameters() if parameter.grad is None]
    zero = [key for key, parameter in projector.named_parameters() if not parameter.grad.any()]
    assert not without
    assert not zero


@pytest.mark.parametrize("name", NAMES)
def test_input_is_not_changed_and_gets_a_gradient(name: str) -> None:
    projector = build(name, **FRAMED).eval()
    source = features()
    before = source.tokens.clone()
    source.tokens.requires_grad_()
    out = projector(source).tokens
    (out * torch.randn_like(out)).sum().backward()
    assert torch.equal(source.tokens, before)
    assert source.tokens.grad.abs().sum(-1).all()


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_stays_bfloat16(name: str) -> None:
    exact = build(name, **FRAMED).eval()
    reference = exact(features()).tokens
    with torch.autocast("cpu", torch.bfloat16):
        mixed = exact(features()).tokens
    low = exact.to(torch.bfloat16)(features(dtype=torch.bfloat16)).tokens
    assert mixed.dtype == low.dtype == torch.bfloat16
    scale = reference.abs().max()
    if "token_merge" not in name:  # rounding may change which tokens are merged
        assert (mixed - reference).abs().max() < 0.06 * scale
        assert (low - reference).abs().max() < 0.06 * scale
    assert low.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_saves_and_loads(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = build(name, **FRAMED).eval()
    save_file(first.state_dict(), tmp_path / "projector.safetensors")
    torch.manual_seed(1)
    second = build(name, **FRAMED).eval()
    assert not torch.equal(first(features()).tokens, second(features()).tokens)
    second.load_state_dict(load_file(tmp_path / "projector.safetensors"))
    assert torch.equal(first(features()).tokens, second(features()).tokens)


@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_recomputes_and_gives_the_same_gradients(name: str) -> None:
    plain, recomputing = (build(name, gradient_checkpointing=on).train() for on in (False, True))
    recomputing.load_state_dict(plain.state_dict())
    gradients, calls = [], []
    for projector in (plain, recomputing):
        counter: Counter[str] = Counter()
        for module in projector.modules():
            if isinstance(module, torch.nn.Linear):
                # before, not after: recomputing stops as soon as the last kept tensor is there
                module.register_forward_pre_hook(lambda *_, counter=counter: counter.update(["linear"]))
        torch.manual_seed(0)  # the same dropout
        projector(features()).tokens.square().sum().backward()
        gradients.append({key: parameter.grad for key, parameter in projector.named_parameters()})
        calls.append(counter["linear"])
    assert calls[1] > calls[0]
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-5, atol=1e-6, msg=key)


@pytest.mark.parametrize("name", [name for name in NAMES if "num_tokens" in node(name)])
def test_number_of_tokens_can_be_set(name: str) -> None:
    projector = build(name, num_tokens=4)
    assert projector(features()).tokens.shape[1] == projector.num_tokens == 4
