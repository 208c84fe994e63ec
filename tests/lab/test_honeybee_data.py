"""Honeybee's data at scale lab: every template speaks in words that the lab's tokenizer knows."""

from pathlib import Path
from typing import Any

import pytest

from mmexp.config import Composer
from mmexp.data.build import ModelFacts, build_windows
from mmexp.data.loader import Shard
from mmexp.data.template import Template
from mmexp.errors import UserError
from mmexp.instantiate import instantiate
from mmexp.lab.text_stage import TextStage
from mmexp.lab.tokenizer import build_tokenizer
from mmexp.lab.world import WorldSpec
from mmexp.model.resolution.resize import Resize
from mmexp.stages.graph import replace_references
from tests.lab.making import WORLD

VARIANTS = ("", "_released", "_coarse", "_multi", "_multi_flip", "_dataset_name", "_task_name", "_indicator")
IMAGES = 6


@pytest.fixture(scope="module")
def configs() -> dict[str, dict[str, Any]]:
    with Composer("lab").open() as composer:
        return {
            name: composer.compose(["experiments=honeybee_c", f"template=honeybee{name}"]).resolved()
            for name in VARIANTS
        }


@pytest.fixture(scope="module")
def drawn(configs: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stages of conf/scale/lab/data/honeybee.yaml with few images."""
    folder = tmp_path_factory.mktemp("lab")
    stages = configs[""]["lab"]["stages"]
    world = {name: value for name, value in stages["honeybee_world"].items() if name != "runtime"}
    world["captions"] = dict.fromkeys(world["captions"], IMAGES)
    world["questions"] = {name: {**node, "images": IMAGES} for name, node in world["questions"].items()}
    text = {name: value for name, value in stages["honeybee_text"].items() if name != "runtime"}
    for name, node in (("honeybee_world", world), ("honeybee_text", {**text, "conversations": IMAGES})):
        (folder / name).mkdir()
        instantiate(node, name).run(folder / name, {})
    return folder


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_word_is_known(variant: str, configs: dict[str, dict[str, Any]], drawn: Path) -> None:
    config = configs[variant]
    templates: list[Template] = [
        instantiate(node, name) for name, node in config["lab"]["stages"]["lab_base"]["templates"].items()
    ]
    tokenizer = build_tokenizer(WorldSpec.from_config(WORLD), templates)
    facts = ModelFacts(
        tokenizer=tokenizer,
        resolutions={"clip": Resize(image_size=32, mean=(0.5, 0.5, 0.5))},
        num_visual_tokens=lambda size: 16,
        features=None,
    )
    for name, stage in config["recipe"]["stages"].items():
        node = replace_references(stage["data"], lambda parent, sub: f"{drawn / parent}{sub}")
        shard = Shard(rank=0, world_size=1, micro_batch_size=16)
        reader = build_windows(node, seed=0, facts=facts, shard=shard, cache_bytes=0).reader
        for dataset in range(len(reader.mixture.names)):
            for position in range(len(reader.mixture.sources[dataset])):
                conversations = reader.tokenize((dataset, position), position)
                assert all(tokenizer.unk_token_id not in one.input_ids for one in conversations), name
                # 144 tokens are the most that a row of Honeybee's sweeps has
                assert all(len(one.input_ids) + 8 * one.num_visual_tokens <= 512 for one in conversations)


def test_each_question_is_told_its_scene(tmp_path: Path) -> None:
    import json

    TextStage(world=WORLD, conversations=3, questions={"existence": 2, "count": 1}, seed=0).run(tmp_path, {})
    records = json.loads((tmp_path / "described.json").read_text())
    assert len(records) == 3
    for record in records:
        assert "image" not in record
        assert [entry["from"] for entry in record["conversations"]] == ["human", "gpt"] * 3
        for entry in record["conversations"][::2]:
            told, _, asked = entry["value"].partition(". ")
            assert told.count(" at ") >= 2
            assert asked.endswith("?")
    with pytest.raises(UserError, match="conversations: 0"):
        TextStage(world=WORLD, conversations=0, questions={}, seed=0)
