"""Pre-alignment end to end with tiny models: what each stage trains, what goes on, and what is never trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mmexp.errors import UserError
from mmexp.model.build import lineage, load_model, load_trained
from mmexp.model.mllm import Mllm
from mmexp.training.parameters import freeze_and_group, trained_names
from mmexp.training.stage import TrainStage
from tests.tiny import (
    COSINE,
    clip_node,
    convnext_node,
    data_node,
    image_batch,
    random_batch,
    runtime_node,
    save_checkpoint,
    save_dataset,
    tiny_spec,
)

LAST = {"feature_layers": {"_target_": "mmexp.model.feature_layers.single.SingleLayer", "layer": -1}}
CONCAT = {"_target_": "mmexp.model.fusion.channel_concat.ChannelConcat", "grid": [4, 4], "route": "bilinear"}
ENCODERS = {"clip": clip_node(**LAST), "convnext": convnext_node(**LAST)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoders from files, as real ones are: what a stage does not save must come from there."""
    folder = tmp_path_factory.mktemp("world")
    save_checkpoint(folder / "llm")
    save_dataset(folder / "data", count=8)
    from safetensors.torch import save_file

    torch.manual_seed(5)
    for name, part in Mllm(tiny_spec(encoders=ENCODERS, fusion=CONCAT), load=False).vision.encoders.items():
        save_file(part.network.state_dict(), folder / f"{name}.safetensors")
    return folder


def model_node(world: Path, *names: str) -> dict[str, Any]:
    encoders = {name: {**ENCODERS[name], "weights": str(world / f"{name}.safetensors")} for name in names}
    node = tiny_spec(encoders=encoders, fusion=CONCAT)
    node["llm"] |= {"checkpoint": str(world / "llm"), "config": None}
    return node


def train(world: Path, folder: Path, names: list[str], init_from: Any, **trainable: float) -> Path:
    folder.mkdir(parents=True)
    TrainStage(
        model=model_node(world, *names),
        init_from=init_from,
        trainable=trainable,
        data=data_node(save_dataset(world / "data", count=8), batch_size=4),
        optimizer={"_target_": "torch.optim.AdamW", "weight_decay": 0.0},
        schedule={
            "steps": 2,
            "warmup_ratio": 0.0,
            "decay": COSINE,
            "clip_norm": 1.0,
        },
        precision="fp32",
        seed=0,
        num_threads=1,
    ).run(folder, runtime_node(world, micro_batch_size=4, feature_cache=True))
    return folder


@pytest.fixture(scope="module")
def stages(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    store = tmp_path_factory.mktemp("store")
    clip = train(world, store / "pre_clip", ["clip"], None, encoders=1e-3, projector=1e-2)
    convnext = train(world, store / "pre_convnext", ["convnext"], None, encoders=1e-3, projector=1e-2)
    both = ["clip", "convnext"]
    align = train(world, store / "align", both, [str(clip), str(convnext)], encoders=0, projector=1e-2)
    finetune = train(world, store / "finetune", both, str(align), encoders=1e-3, projector=1e-3, llm=1e-3)
    return {"pre_clip": clip, "pre_convnext": convnext, "align": align, "finetune": finetune}


def trained_in(folder: Path) -> set[str]:
    return {".".join(name.split(".")[:2]) for name in load_file(folder / "weights.safetensors")}


def values(model: Mllm, prefix: str) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in model.named_trainables() if name.startswith(prefix)}


def test_each_stage_trains_its_parts_and_no_other(stages: dict[str, Path]) -> None:
    assert trained_in(stages["pre_clip"]) == {"encoders.clip", "projector.0"}
    assert trained_in(stages["align"]) == {"projector.0"}
    assert {"encoders.clip", "encoders.convnext", "projector.0"} < trained_in(stages["finetune"])


def test_encoders_go_on_and_connector_and_llm_do_not(world: Path, stages: dict[str, Path]) -> None:
    start = load_model(model_node(world, "clip", "convnext"), None)
    joint = load_model(model_node(world, "clip", "convnext"), str(stages["align"]))
    for name in ("clip", "convnext"):
        saved = load_file(stages[f"pre_{name}"] / "weights.safetensors")
        own, untouched = values(joint, f"encoders.{name}"), values(start, f"encoders.{name}")
        moved = {part for part in own if not torch.equal(own[part], untouched[part])}
        assert moved, "the stage trained nothing"
        assert all(torch.equal(own[part], saved[part]) for part in saved if part.startswith("encoders"))
        assert moved <= set(saved)
    assert all(torch.equal(value, values(start, "llm")[name]) for name, value in values(joint, "llm").items())
    joint_saved = load_file(stages["align"] / "weights.safetensors")
    assert all(torch.equal(value, joint_saved[name]) for name, value in values(joint, "projector").items())


def test_the_order_of_the_list_does_not_matter_and_lineage_holds_all(world: Path, stages: dict[str, Path]) -> None:
    parents = [str(stages["pre_convnext"]), str(stages["pre_clip"])]
    one, other = (load_model(model_node(world, "clip", "convnext"), order) for order in (parents, parents[::-1]))
    assert all(torch.equal(value, values(other, "encoders")[name]) for name, value in values(one, "encoders").items())
    assert [folder.name for folder in lineage(str(stages["finetune"]))] == [*stages]


def test_what_does_not_fit_is_named(world: Path, stages: dict[str, Path]) -> None:
    alone = load_model(model_node(world, "convnext"), None)
    with pytest.raises(UserError, match="init_from: pre_clip trained no encoder of this model"):
        load_trained(alone, [str(stages["pre_clip"])])
    with pytest.raises(UserError, match=r"pre_convnext and finetune both trained encoders\.convnext"):
        load_trained(alone, [str(stages["pre_convnext"]), str(stages["finetune"])])
    node = model_node(world, "convnext")
    node["encoders"]["convnext"] |= {"model_args": {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 40]}}
    node["encoders"]["convnext"] |= {"weights": "random"}
    with pytest.raises(UserError, match=r"pre_convnext trained encoders\.convnext.*; this model has"):
        load_trained(load_model(node, None), [str(stages["pre_convnext"])])


@pytest.mark.parametrize("layer", [-2, -1])
def test_every_trained_parameter_gets_a_gradient_and_ddp_waits_for_none(tmp_path: Path, layer: int) -> None:
    """DDP without find_unused_parameters raises in the second step when a parameter had no gradient in the first."""
    from torch.nn.parallel import DistributedDataParallel

    selection = {"_target_": "mmexp.model.feature_layers.single.SingleLayer", "layer": layer}
    encoders = {name: {**node, "feature_layers": selection} for name, node in ENCODERS.items()}
    model = Mllm(tiny_spec(encoders=encoders, fusion=CONCAT), load=False)
    freeze_and_group(model, {"encoders": 1e-3, "projector": 1e-3}, 0.0)
    trained = trained_names(model)
    assert "encoders.clip.network.embeddings.class_embedding" in trained
    assert not any("post_layernorm" in name or "head.norm" in name for name in trained)
    assert any("layers.3" in name for name in trained) == (layer == -1)
    batch = random_batch()
    batch.images = image_batch(3, {"clip": 32, "convnext": 128})
    store = f"file://{tmp_path / 'ddp'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(model)
        for _ in range(2):
            wrapped(batch).backward()
    finally:
        torch.distributed.destroy_process_group()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


def test_training_only_what_nothing_reads_is_a_mistake() -> None:
    model = Mllm(tiny_spec(), load=False)
    with pytest.raises(UserError, match="matches only what no gradient reaches"):
        freeze_and_group(model, {"encoders.clip.network.post_layernorm": 1e-3}, 0.0)
