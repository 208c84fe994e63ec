"""What is composed quickly is what Hydra composes."""

from contextlib import nullcontext

import pytest
from omegaconf import OmegaConf

from mmexp.config import Composer, quick_composition

OVERRIDES = [
    ("lab", []),
    ("lab", ["sweeps=eagle/round_robin", "encoder=[clip,sam]", "trainer.align.lr=0.1"]),
    ("paper", ["experiments=honeybee_d_released", "benchmark=[honeybee,pope]", "+data.finetune.note=x"]),
    ("paper", ["experiments=eagle_x5_13b", "feature_layers=dci", "resolution=tile", "~sweeps"]),
]


@pytest.mark.parametrize(("scale", "overrides"), OVERRIDES)
def test_the_whole_config_is_hydras(scale, overrides, monkeypatch):
    def compose():
        with Composer(scale).open() as composer:
            composed = [composer.compose(overrides) for _ in range(2)]
        return [(OmegaConf.to_yaml(one.config), one.choices) for one in composed]

    quick, again = compose()
    monkeypatch.setattr(quick_composition, "quick_composition", lambda loader: nullcontext())
    assert quick == again == compose()[0]
