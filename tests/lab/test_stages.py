"""Expert and language model stages on miniature budgets: they run, they learn, and a kill changes nothing."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mmexp.errors import UserError
from mmexp.instantiate import instantiate
from mmexp.lab.expert_stage import ExpertStage
from mmexp.lab.language_stage import LanguageModelStage
from mmexp.lab.tokenizer import build_tokenizer
from mmexp.stages.graph import build_graph
from tests.lab.making import lab_config, stage_node

STEPS = 6


class Killed(Exception):
    pass


def small(name: str, steps: int = STEPS) -> Any:
    node = stage_node(name)
    short = {"steps": steps, "warmup_steps": 2}
    if "encoder" in node:
        node["budget"] = {**node["budget"], **short}
        probes = {**node["probes"], "train": 20, "test": 20, "steps": 2}
        return ExpertStage(**{**node, "batch_size": 8, "probes": probes})
    curriculum = {**node["curriculum"], "batch_size": 2}
    rounds = [{**part, "corrupt_over": 2, "budget": {**part["budget"], **short}} for part in node["rounds"][-2:]]
    return LanguageModelStage(**{**node, "curriculum": curriculum, "rounds": rounds, "check": {"scenes": 4}})


def kill_at(step: int) -> Any:
    def progress(done: int, total: int) -> None:
        assert total == STEPS
        if done == step:
            raise Killed

    return progress


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", ["lab_clip", "lab_base"])
def test_a_killed_stage_ends_as_an_uninterrupted_one(name: str, tmp_path: Path) -> None:
    runtime = {"checkpoint_every_steps": 2, "title": name}
    for folder in ("whole", "killed"):
        (tmp_path / folder).mkdir()
    small(name).run(tmp_path / "whole", runtime)
    with pytest.raises(Killed):
        small(name).run(tmp_path / "killed", {**runtime, "progress": kill_at(5)})
    assert list((tmp_path / "killed").rglob("checkpoint.pt"))
    done: list[int] = []
    small(name).run(tmp_path / "killed", {**runtime, "progress": lambda step, total: done.append(step)})
    assert done == ([5, 6] if name == "lab_clip" else [5, 6, 1, 2, 3, 4, 5, 6])
    assert digest(tmp_path / "whole") == digest(tmp_path / "killed")
    assert "checkpoint.pt" not in digest(tmp_path / "whole")


def test_the_language_model_is_a_checkpoint_folder(tmp_path: Path) -> None:
    small("lab_base", steps=2).run(tmp_path, {})
    model = AutoModelForCausalLM.from_pretrained(tmp_path, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert model.config.vocab_size == len(tokenizer)
    llm = instantiate({**lab_config()["llm"], "checkpoint": str(tmp_path)}, "llm")
    assert llm.dim == model.config.hidden_size
    bare = instantiate({**lab_config()["llm"], "checkpoint": str(tmp_path)}, "llm", load=False)
    bare.load_state_dict(llm.state_dict())
    embeds, places = torch.randn(1, 7, llm.dim), torch.arange(7)[None]
    assert torch.equal(llm(embeds, None, places), bare(embeds, None, places))
    styles = json.loads((tmp_path / "lookup.json").read_text())["accuracy"]
    assert any("vicuna_v1, prompt none, multi turn" in style for style in styles)


def test_experts_do_not_depend_on_the_drawn_files() -> None:
    """More test questions must not rebuild the experts; another world must."""
    plain = build_graph(lab_config()).keys
    more = build_graph(lab_config("lab.stages.lab_world.questions.test.images=9")).keys
    other = build_graph(lab_config("lab.world.noise=3")).keys
    assert more["lab_world"] != plain["lab_world"]
    assert (more["lab_clip"], more["lab_base"]) == (plain["lab_clip"], plain["lab_base"])
    assert other["lab_clip"] != plain["lab_clip"] and other["lab_base"] != plain["lab_base"]


def test_a_curriculum_names_templates_that_are_there() -> None:
    node = stage_node("lab_base")
    node["curriculum"] = {**node["curriculum"], "templates": ["vicuna"]}
    with pytest.raises(UserError, match="'vicuna' is not among its templates"):
        LanguageModelStage(**node)


def test_the_head_that_looks_back_sees_the_token_before() -> None:
    """From the weights alone: scores of the first head, with the rotary angles written out."""
    stage = LanguageModelStage(**stage_node("lab_base"))
    model = stage._model(build_tokenizer(stage.spec, stage.templates.values()))
    attention, size = model.model.layers[0].self_attn, 24
    hidden = model.model.layers[0].input_layernorm(model.get_input_embeddings().weight[20:60])
    angles = torch.arange(40)[:, None] / 1e4 ** (torch.arange(12) / 12)

    def turned(part: torch.Tensor) -> torch.Tensor:
        whole = torch.complex(part[:, :12], part[:, 12:])
        return whole * torch.polar(torch.ones_like(angles), angles)

    with torch.no_grad():
        query, key = (turned(hidden @ getattr(attention, name).weight[:size].t()) for name in ("q_proj", "k_proj"))
    scores = (query @ key.conj().t()).real / size**0.5
    seen = scores.masked_fill(torch.ones(40, 40).triu(1).bool(), -torch.inf).argmax(1)
    # A token of small norm has a large share of the common channel, so that here and there one sees itself.
    assert (seen[1:] == torch.arange(39)).sum() >= 36
    ahead = scores.diagonal(-1) - scores.diagonal()[1:]
    assert ahead.mean() == pytest.approx(stage.look_back, rel=0.25)


def test_corruption_grows_over_a_round() -> None:
    stage = LanguageModelStage(**stage_node("lab_base"))
    part = stage.rounds[-1]
    steps = (0, part.corrupt_over // 2 - 1, part.corrupt_over - 1, part.budget.steps - 1)
    amounts = [stage.curriculum.corruption_at(part, step) for step in steps]
    full = stage.curriculum.corruption["noise"]
    assert [amount.noise / full for amount in amounts] == pytest.approx([1 / part.corrupt_over, 0.5, 1, 1])
    assert amounts[0].min_gain > 0.99 and amounts[-1].min_gain == pytest.approx(0.1)
    assert all(amount.percent == part.corrupt_percent for amount in amounts)
