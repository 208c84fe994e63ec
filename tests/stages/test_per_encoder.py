"""Stages made for each encoder: shared by all combinations, named and wired by themselves."""

from typing import Any

import pytest

from mmexp.config import Composer
from mmexp.config.per_encoder import expand_stages
from mmexp.errors import UserError
from mmexp.planning.check import check_trial
from mmexp.stages.graph import build_graph


@pytest.fixture(scope="module")
def paper():
    with Composer("paper").open() as composer:
        yield composer


def config(paper: Composer, encoders: str, *overrides: str) -> dict[str, Any]:
    fusion = "none" if "," not in encoders else "channel_concat"
    choices = [f"encoder=[{encoders}]", f"fusion={fusion}", "feature_layers=last", "recipe=eagle_prealign", *overrides]
    return paper.compose(choices).resolved()


def test_all_combinations_share_the_stage_of_an_expert(paper: Composer) -> None:
    two = build_graph(config(paper, "clip,convnext")).keys
    three = build_graph(config(paper, "convnext,clip,sam")).keys
    assert [name for name in three if "prealign" in name] == ["prealign_convnext", "prealign_clip", "prealign_sam"]
    for name in ("prealign_clip", "prealign_convnext"):
        assert two[name] == three[name]
        assert two[name] in build_graph(config(paper, name.removeprefix("prealign_"))).keys.values()
    assert two["align"] != three["align"]


@pytest.mark.parametrize(
    "override",
    [
        "fusion=deformable",
        "projector=linear",
        "llm=vicuna_13b",
        "template=llama3",
        "recipe.align_encoder_lr=1e-5",
        "recipe.finetune_encoder_lr=0",
        "trainer.align.schedule.steps=7",
    ],
)
def test_what_follows_does_not_change_an_expert(paper: Composer, override: str) -> None:
    plain, other = (build_graph(config(paper, "clip,convnext", *more)).keys for more in ((), (override,)))
    assert plain["prealign_convnext"] == other["prealign_convnext"]
    assert plain["finetune"] != other["finetune"]


def test_the_recipe_can_be_built_and_says_what_each_stage_trains(paper: Composer) -> None:
    resolved = config(paper, "clip,sam")
    check_trial(resolved)
    stages = resolved["recipe"]["stages"]
    assert set(stages) == {"prealign_clip", "prealign_sam", "align", "finetune"}
    assert list(stages["prealign_sam"]["model"]["encoders"]) == ["sam"]
    assert not any("llm" in pattern for pattern in stages["prealign_sam"]["trainable"])
    assert stages["align"]["init_from"] == ["stage:prealign_clip", "stage:prealign_sam"]
    assert stages["finetune"]["init_from"] == "stage:align"


def test_a_config_without_templates_stays_as_it_is() -> None:
    plain = {"recipe": {"stages": {"a": {"_target_": "x", "from": "stage:b"}}}, "seed": 0}
    assert expand_stages(plain) == plain
    assert expand_stages({"seed": 0}) == {"seed": 0}


def test_mistakes_are_named() -> None:
    template = {"_target_": "x", "per_encoder": True, "model": {"encoders": {"clip": {}}}}
    with pytest.raises(UserError, match=r"recipe\.stages\.pre_clip: another stage has this name"):
        expand_stages({"recipe": {"stages": {"pre_clip": {"_target_": "x"}, "pre": template}}})
    with pytest.raises(UserError, match=r"recipe\.stages\.pre\.per_encoder: .* has none"):
        expand_stages({"recipe": {"stages": {"pre": {**template, "model": {"llm": 1}}}}})
