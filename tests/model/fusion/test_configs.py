"""Mixtures of experts from the shipped configs: impossible ones are one line before anything is built for real."""

import pytest

from mmexp.config import Composer
from mmexp.errors import UserError
from mmexp.planning.validate import validate

LAST = "feature_layers=last"
GRID = "fusion.grid=[32,32]"
MISTAKES = [
    (["encoder=[clip,clip]"], r"encoder=\[clip,clip\]: 'clip' occurs twice; each encoder can be chosen once"),
    (["encoder=[clip, siglip, clip]", "fusion=channel_concat"], "'clip' occurs twice"),
    (["encoder=[clip,convnxt]"], "encoder=convnxt: no such option at scale paper; did you mean 'convnext'"),
    (["encoder=[clip,siglip]"], "fusion=none takes one encoder"),
    (["encoder=[clip]", "fusion=mini_gemini"], "fusion=mini_gemini adds experts to the first one and needs two"),
    (
        ["encoder=[clip_448,pix2struct]", "fusion=channel_concat", "fusion.route=pixel_shuffle", LAST],
        r"pixel_shuffle cannot bring 'pix2struct' \(45 x 45, width 1536\) to the grid of 'clip_448' \(32 x 32\)",
    ),
    (
        ["encoder=[clip_448,pix2struct]", "fusion=llava_hr", LAST],
        r"'pix2struct' \(45 x 45\) cannot be averaged in whole blocks to the grid of 'clip_448' \(32 x 32\)",
    ),
    (
        ["encoder=[clip,sam]", "fusion=mini_gemini", LAST],
        r"'sam' \(32 x 32\) cannot be cut into whole windows for the tokens of 'clip' \(24 x 24\); set fusion\.window",
    ),
    (
        ["encoder=[clip_448,convnext]", "fusion=sequence_append", LAST],
        r"max_length: 2048 positions are too few for 2048 visual tokens",
    ),
    (
        ["encoder=[clip_448,convnext,sam,eva02]", "fusion=sequence_append", LAST],
        r"llm \(its context\): 4096 positions are too few for 4096 visual tokens",
    ),
]
MIXTURES = [
    (["encoder=[pix2struct]", "fusion=channel_concat", GRID], 1024),
    (["encoder=[clip_448,convnext,sam,pix2struct,eva02,dinov2,siglip,internvit]", "fusion=channel_concat"], 1024),
    (["encoder=[clip,convnext_l]", "fusion=mini_gemini"], 576),
    (["encoder=[clip_448,convnext]", "fusion=llava_hr"], 1024),
    (["encoder=[clip_448,convnext,sam]", "fusion=mini_gemini"], 1024),
    (["encoder=[clip_448,convnext,pix2struct]", "fusion=deformable"], 1024),
    (["encoder=[clip,siglip]", "fusion=sequence_append"], 1152),
]


@pytest.fixture(scope="module")
def paper():
    with Composer("paper").open() as composer:
        yield composer


@pytest.mark.parametrize(("overrides", "message"), MISTAKES)
def test_impossible_mixtures_are_one_line(paper: Composer, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        validate(paper.compose(overrides).resolved())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("overrides", "tokens"), MIXTURES)
def test_mixtures_at_scale_paper_build_and_train_their_fusion(
    paper: Composer, overrides: list[str], tokens: int
) -> None:
    from mmexp.model.build import build_meta_model
    from mmexp.training.parameters import freeze_and_group, trained_names

    config = paper.compose([*overrides, LAST]).resolved()
    validate(config)
    model = build_meta_model(config["evaluation"]["model"])
    assert model.vision.tokens_per_view == tokens
    for stage in config["recipe"]["stages"].values():
        freeze_and_group(model, stage["trainable"], 0.0)
        trained = set(trained_names(model))
        assert all(f"fusion.{name}" in trained for name, _ in model.vision.fusion.named_parameters())


@pytest.mark.parametrize(
    ("experiment", "experts", "projector"),
    [
        ("eagle_x4", ["clip_448", "convnext", "eva02", "pix2struct"], 44.0),
        ("eagle_x5", ["clip_448", "convnext", "sam", "eva02", "pix2struct"], 48.2),
    ],
)
def test_eagles_experiments_have_the_published_sizes(
    paper: Composer, experiment: str, experts: list[str], projector: float
) -> None:
    from mmexp.planning.plan import plan

    config = paper.compose([f"experiments={experiment}"]).resolved()
    figures = plan(experiment, config)
    assert list(config["model"]["encoders"]) == experts
    assert figures.visual_tokens == 1024
    assert round(figures.parameters["projector"] / 1e6, 1) == projector
    assert figures.trained["align"] == figures.parameters["projector"]
    unread = sum(figures.parameters.values()) - figures.trained["finetune"]  # norms behind the last blocks
    assert 0 < unread < 20_000
    if experiment == "eagle_x5":
        assert sum(figures.parameters[name] for name in experts) / 1e9 == pytest.approx(2.27, abs=0.02)
