"""LLaVA-1.5-HD as configured: aligned on one view, shared with what has the same encoder; tiles from finetuning on."""

import pytest

from mmexp.config import SCALES, Composer
from mmexp.planning.check import check_trial
from mmexp.stages.graph import build_graph

HD = "experiments=llava15_hd"


@pytest.mark.parametrize("scale", SCALES)
def test_alignment_sees_one_view_and_is_shared(scale: str) -> None:
    with Composer(scale).open() as composer:
        tiled, native, plain = (
            composer.compose(choices).resolved()
            for choices in ([HD], [HD, "resolution=pad"], ["experiments=llava15", "encoder=[clip_224]"])
        )
    check_trial(tiled)
    stages = tiled["recipe"]["stages"]
    seen = {name: stage["model"]["encoders"]["clip_224"]["resolution"]["_target_"] for name, stage in stages.items()}
    assert seen == {"align": "mmexp.model.resolution.pad.Pad", "finetune": "mmexp.model.resolution.tile.Tile"}
    assert tiled["evaluation"]["model"] == stages["finetune"]["model"]
    keys = [build_graph(config).keys for config in (tiled, native, plain)]
    assert len({key["align"] for key in keys}) == 1
    assert keys[0]["finetune"] != keys[1]["finetune"]
