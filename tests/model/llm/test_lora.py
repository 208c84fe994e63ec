"""LoRA: nothing changes until it is trained, only adapters train and are saved, they load back, they can be merged."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mmexp.config import SCALES, Composer
from mmexp.errors import UserError
from mmexp.model.build import build_meta_model, load_model
from mmexp.model.mllm import Mllm
from mmexp.training.parameters import freeze_and_group
from tests.tiny import random_batch, save_checkpoint, save_dataset, tiny_spec
from tests.training.test_stage import stage, train

LORA = {"r": 4, "alpha": 8, "dropout": 0.0, "targets": "all-linear"}
PATTERN = "llm.*lora_"


def spec(lora: dict[str, Any] | None, **llm: Any) -> dict[str, Any]:
    node = tiny_spec()
    node["llm"] |= {"lora": lora, **llm}
    return node


def adapters(model: Mllm) -> dict[str, torch.nn.Parameter]:
    return {name: value for name, value in model.named_trainables() if "lora_" in name}


def noisy(model: Mllm) -> Mllm:
    """Adapters as if trained."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapters(model).values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    save_checkpoint(folder / "llm")
    save_dataset(folder / "data", count=12)
    return folder


def world_spec(world: Path, lora: dict[str, Any] | None = LORA) -> dict[str, Any]:
    return spec(lora, checkpoint=str(world / "llm"), config=None)


def logits(model: Mllm) -> torch.Tensor:
    with torch.no_grad():
        return model.eval().logits(random_batch())


def test_fresh_adapters_change_nothing_and_trained_ones_do(world: Path) -> None:
    torch.manual_seed(0)
    plain = load_model(world_spec(world, None), None)
    torch.manual_seed(0)
    adapted = load_model(world_spec(world), None)
    before = logits(plain)
    adapted.vision.load_state_dict(plain.vision.state_dict())
    assert torch.equal(logits(adapted), before)
    assert not torch.allclose(logits(noisy(adapted)), before, atol=1e-3)


def test_all_linear_is_every_linear_layer_but_the_head() -> None:
    names = adapters(Mllm(spec(LORA), load=False))
    layers = {name.split(".lora_")[0].split(".")[-1] for name in names}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert len(names) == 3 * 7 * 2
    few = adapters(Mllm(spec({**LORA, "targets": ["q_proj", "v_proj"]}), load=False))
    assert {name.split(".lora_")[0].split(".")[-1] for name in few} == {"q_proj", "v_proj"}


def test_rank_and_alpha_have_their_meaning() -> None:
    """The update is alpha / r times B A."""
    model = noisy(Mllm(spec({**LORA, "targets": ["q_proj"]}), load=False))
    layer = model.llm.network.model.layers[0].self_attn.q_proj
    first, second = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert first.shape == (4, 96) and second.shape == (96, 4)
    values = torch.randn(2, 96)
    expected = layer.base_layer(values) + 8 / 4 * values @ first.T @ second.T
    assert torch.allclose(layer(values), expected, atol=1e-5)


def test_only_adapters_get_a_gradient_with_a_learning_rate_of_their_own() -> None:
    model = Mllm(spec(LORA, gradient_checkpointing=True), load=False)
    groups = freeze_and_group(model, {"projector": 1e-3, PATTERN: 2e-4}, 0.1)
    assert {group["lr"] for group in groups} == {1e-3, 2e-4}
    trained = {name for name, value in model.named_trainables() if value.requires_grad}
    assert trained == set(adapters(model)) | {name for name, _ in model.named_trainables() if name.startswith("proj")}
    model(random_batch()).backward()
    assert all(value.grad is not None for value in adapters(model).values())
    assert all(value.grad is None for name, value in model.named_trainables() if name not in trained)


def test_dropout_acts_in_training_only() -> None:
    model = noisy(Mllm(spec({**LORA, "dropout": 0.5}), load=False))
    freeze_and_group(model, {PATTERN: 1e-3}, 0.0)
    batch = random_batch()
    with torch.no_grad():
        assert not torch.equal(model.logits(batch), model.logits(batch))
        model.eval()
        assert torch.equal(model.logits(batch), model.logits(batch))


def test_a_stage_saves_adapters_only_and_they_load_back(world: Path, tmp_path: Path) -> None:
    node = world_spec(world)
    weights = train(tmp_path / "stage", world, model=node, trainable={"projector": 1e-2, PATTERN: 1e-2})
    assert set(load_file(tmp_path / "stage" / "weights.safetensors")) == set(weights)
    assert all("lora_" in name for name in weights if name.startswith("llm"))
    assert any(value.any() for name, value in weights.items() if "lora_B" in name)
    state = dict(load_model(node, str(tmp_path / "stage")).named_trainables())
    assert all(torch.equal(state[name], value) for name, value in weights.items())
    original = dict(load_model(world_spec(world, None), None).named_trainables())
    name = "llm.network.model.layers.0.mlp.up_proj.weight"
    assert torch.equal(state[name], original[name])


def test_merging_gives_the_plain_network_with_the_same_numbers() -> None:
    model = noisy(Mllm(spec(LORA), load=False))
    before = logits(model)
    model.llm.merge_lora()
    assert torch.allclose(logits(model), before, atol=1e-5)
    plain = Mllm(spec(None), load=False)
    assert [name for name, _ in model.named_trainables()] == [name for name, _ in plain.named_trainables()]
    plain.load_state_dict(model.state_dict())
    assert torch.allclose(logits(plain), before, atol=1e-5)
    plain.llm.merge_lora()
    assert torch.allclose(logits(plain), before, atol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_recipes_train_what_they_say(scale: str) -> None:
    expected = {
        "llava15_lora": {"projector", "llm"},
        "llava15_tune_encoder": {"projector", "llm", "encoders"},
    }
    with Composer(scale).open() as composer:
        for recipe, parts in expected.items():
            config = composer.compose([f"recipe={recipe}"]).resolved()
            node, rates = config["recipe"]["stages"]["finetune"], config["trainer"]["finetune"]["lr"]
            model = build_meta_model(node["model"])
            groups = freeze_and_group(model, node["trainable"], 0.0)
            trained = [name for name, value in model.named_trainables() if value.requires_grad]
            assert {name.split(".")[0] for name in trained} == parts
            wanted = (
                {rates["projector"], rates["lora"]} if "lora" in recipe else {rates[p] for p in rates if p != "lora"}
            )
            assert {group["lr"] for group in groups} == wanted
            assert all("lora_" in name for name in trained if "lora" in recipe and name.startswith("llm"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": 0}, "llm.lora.r: 0 must be an integer of at least 1"),
        ({"alpha": 0}, "llm.lora.alpha: 0"),
        ({"dropout": 1.0}, "llm.lora.dropout: 1.0"),
        ({"targets": ["q_proj", "k_prjo"]}, "this LLM has no 'k_prjo'; did you mean 'k_proj'"),
        ({"targets": "q_proj"}, "write all-linear or a list"),
        ({"targets": []}, "write all-linear or a list"),
        ({"rank": 4}, r"llm\.lora\.rank: no such setting"),
    ],
)
def test_mistakes_are_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Mllm(spec({**LORA, **change}), load=False)
    with pytest.raises(UserError, match="targets: is missing"):
        Mllm(spec({"r": 1, "alpha": 1, "dropout": 0}), load=False)


def test_training_an_adapter_that_is_not_there_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="matches no parameter"):
        stage(world, trainable={PATTERN: 1e-3}).run(tmp_path, {})
