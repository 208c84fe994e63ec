"""Figures of the real configs, against the numbers of the fact sheets; impossible configs named by key."""

import pytest
from rich.console import Console

from mmexp.config import Composer
from mmexp.errors import UserError
from mmexp.planning.plan import plan, print_plans
from mmexp.planning.validate import validate


@pytest.fixture(scope="module")
def paper():
    with Composer("paper").open() as composer:
        yield composer


def test_llava15_7b_has_the_published_sizes(paper: Composer) -> None:
    figures = plan("llava15", paper.compose(["experiments=llava15"]).resolved())
    assert figures.visual_tokens == 576
    assert figures.parameters["llm"] == 6_738_415_616
    assert figures.parameters["projector"] == 20_979_712
    assert figures.parameters["clip"] == 303_507_456
    assert figures.trained == {"align": 20_979_712, "finetune": 20_979_712 + 6_738_415_616}
    assert figures.samples["finetune"] == pytest.approx(665_000, rel=1e-3)


def test_the_blind_baseline_is_an_llm_alone(paper: Composer) -> None:
    figures = plan("blind", paper.compose(["recipe=blind"]).resolved())
    assert figures.visual_tokens == 0
    assert set(figures.parameters) == {"llm"}


def test_the_table_fits_a_terminal(paper: Composer) -> None:
    console = Console(width=80, record=True, force_terminal=False)
    print_plans([plan("mlp_penultimate", paper.compose([]).resolved())], console)
    text = console.export_text()
    for expected in ("303.51M", "20.98M", "6.74B", "finetune 6.76B", "576"):
        assert expected in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["feature_layers.layer=-40"], r"feature_layers\.layer: -40 is beyond this encoder, which has 24 blocks"),
        (["encoder=[clip,siglip]"], "fusion=none takes one encoder"),
        (["trainer.finetune.batching.max_length=300"], "max_length: 300 positions are too few for 576 visual tokens"),
        (["llm.config.max_position_embeddings=500"], "500 positions are too few"),
        (["+recipe.stages.align.trainable.projektor=1e-3"], r"stages\.align\.trainable: 'projektor' matches no"),
        (["projector.depth=0"], r"projector\.depth: 0 must be at least 1"),
    ],
)
def test_impossible_configs_are_named(paper: Composer, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(paper.compose(overrides).resolved())
