"""Tiles inside the composed model: from files to the loss, several encoders, stored features, no grid."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmexp.data.build import ModelFacts, build_windows
from mmexp.data.loader import Shard
from mmexp.errors import UserError
from mmexp.interfaces import IMAGE_TOKEN_ID, ImageBatch
from mmexp.model.build import token_counter
from mmexp.model.feature_cache import FeatureStore
from mmexp.model.mllm import Mllm
from tests.data import tokenizers
from tests.data.test_loader import data_node
from tests.parity.test_llava_next import noise, tile_node
from tests.tiny import TEXT, clip_node, convnext_node, mlp_node, tiny_spec

SIZES = [(64, 64), (100, 37), (30, 90), (31, 32), (64, 64), (90, 33)]
HALVED = {
    "_target_": "mmexp.model.reduction.bilinear.BilinearReduction",
    "size": [2, 2],
    "align_corners": False,
    "antialias": False,
    "where": "after_projector",
}
STI = {
    "_target_": "mmexp.model.feature_layers.sti.SparseTokenIntegration",
    "layers": [1, 2],
    "numbering": "hf",
    "final": -2,
    "stride": 8,
    "tail": "drop",
    "pooling": "average",
    "order": "final_first",
}
FLAT: dict[str, Any] = {"assemble": "tiles", "unpad": False, "newline": False}


def model(resolution: dict[str, Any] | None = None, **changes: Any) -> Mllm:
    spec = tiny_spec(encoders={"clip": clip_node(resolution=resolution or tile_node())}, **changes)
    spec["llm"]["config"] = {"model_type": "llama", **TEXT, "vocab_size": 500}
    torch.manual_seed(0)
    return Mllm(spec, load=False)


def images_for(made: Mllm, sizes: list[tuple[int, int]]) -> ImageBatch:
    views = {name: [part.views(noise(size)) for size in sizes] for name, part in made.vision.resolutions.items()}
    counts = [len(view) for view in next(iter(views.values()))]
    return ImageBatch(
        views={name: torch.from_numpy(np.concatenate(parts)) for name, parts in views.items()},
        view_counts=counts,
        sizes=sizes,
    )


def write(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    (folder / "images").mkdir()
    records = []
    for number, size in enumerate(sizes):
        noise(size).save(folder / "images" / f"{number}.png")
        turns = [{"from": "human", "value": "<image>\nis there a red shape ?"}, {"from": "gpt", "value": f"{number}"}]
        records.append({"id": str(number), "image": f"{number}.png", "conversations": turns})
    (folder / "data.json").write_text(json.dumps(records))
    return folder / "data.json"


@pytest.mark.parametrize("packing", ["none", "sequence", "shared_prefix"])
def test_from_files_of_many_sizes_to_the_loss(tmp_path: Path, packing: str) -> None:
    """The last image is a thread: a bad sample, and another one stands in for it."""
    made = model()
    path = write(tmp_path, [*SIZES, (3000, 1)])
    node = data_node(path, batch_size=7, packing=packing, max_length=512, max_bad_samples=1)
    facts = ModelFacts(
        tokenizer=tokenizers.llama(legacy=True),
        resolutions=made.vision.resolutions,
        num_visual_tokens=token_counter(made),
        features=None,
    )
    shard = Shard(rank=0, world_size=1, micro_batch_size=7)
    window = build_windows(node, seed=0, facts=facts, shard=shard, cache_bytes=10**7)[0]
    assert [error.reason for error in window.bad] == [
        "an image of 3000 x 1 px is too narrow: no grid of resolution=tile keeps a pixel of its shorter side"
    ]
    (batch,) = window.batches
    expected = sum(made.vision.num_tokens(size) for size in batch.images.sizes)
    assert int((batch.input_ids == IMAGE_TOKEN_ID).sum()) == expected
    made(batch).backward()
    assert made.vision.assembler.newline.grad.abs().max() > 0


def test_known_before_the_model_for_any_size() -> None:
    drawn = np.random.default_rng(0).integers(4, 200, (40, 2))
    sizes = [(int(width), int(height)) for width, height in drawn]
    for resolution in (tile_node(), tile_node(global_view="none", newline=False), tile_node(**FLAT)):
        for changes in ({}, {"reduction": HALVED}):
            made = model(resolution, **changes).eval()
            with torch.no_grad():
                tokens = made.vision(images_for(made, sizes))
            assert [len(part) for part in tokens] == [token_counter(made)(size) for size in sizes]
            assert max(map(len, tokens)) <= made.vision.max_num_tokens


def test_the_most_tokens_are_those_of_an_image_without_padding() -> None:
    made = model()
    assert made.vision.max_num_tokens == made.vision.num_tokens((64, 64)) == 16 + 8 * 9
    tall = model(tile_node(grids=[[1, 6], [6, 1]]))
    assert tall.vision.max_num_tokens == 16 + 24 * 5 > tall.vision.num_tokens((192, 32)) == 16 + 4 * 25


def test_features_come_from_the_store_view_by_view(tmp_path: Path) -> None:
    made = model().eval().requires_grad_(False)
    images = images_for(made, SIZES)
    views = list(images.views["clip"].numpy())
    store = FeatureStore(made, tmp_path, 10**9)
    unique = len({view.tobytes() for view in views})
    assert store.fill(lambda _name: views) == unique < len(views)
    direct = made.visual_tokens(images)
    taps = [store.lookup("clip", view) for view in views]
    images.features = {"clip": {tap: torch.from_numpy(np.stack([part[tap] for part in taps])) for tap in taps[0]}}
    images.views = {}
    torch.testing.assert_close(made.visual_tokens(images), direct, atol=1e-5, rtol=1e-4)


def two(clip: dict[str, Any], convnext: dict[str, Any], fusion: str, **fusion_options: Any) -> Mllm:
    encoders = {"clip": clip_node(resolution=clip), "convnext": convnext_node(resolution=convnext)}
    return Mllm(tiny_spec(encoders=encoders, fusion={"_target_": fusion, **fusion_options}), load=False)


CHANNELS = "mmexp.model.fusion.channel_concat.ChannelConcat"
SEQUENCE = "mmexp.model.fusion.sequence_append.SequenceAppend"
GRID = {"grid": [4, 4], "route": "bilinear"}


def test_two_encoders_of_different_size_share_tiles() -> None:
    shared = tile_node(tile_size=32)
    made = two(shared, shared, CHANNELS, **GRID)
    images = images_for(made, SIZES)
    assert images.views["convnext"].shape[1:] == (3, 128, 128)
    assert len(images.views["clip"]) == len(images.views["convnext"])
    tokens = made.vision(images)
    assert [len(part) for part in tokens] == [made.vision.num_tokens(size) for size in SIZES]


@pytest.mark.parametrize(
    ("clip", "convnext", "message"),
    [
        (
            tile_node(),
            tile_node(),
            r"clip and convnext must divide .* differ in tile_size: \(32, 32\) and \(128, 128\); set",
        ),
        (
            tile_node(tile_size=32),
            {"_target_": "mmexp.model.resolution.pad.Pad"},
            "differ in views: tiles and one; give them one resolution",
        ),
        (tile_node(tile_size=32), tile_node(tile_size=32, grids=[[1, 2]]), "differ in grids"),
    ],
)
def test_a_grid_that_two_encoders_cannot_share(clip: dict[str, Any], convnext: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        two(clip, convnext, CHANNELS, **GRID)


def test_tokens_without_rows_need_flat_tiles() -> None:
    shared = tile_node(tile_size=32)
    with pytest.raises(UserError, match="choose resolution=tile_flat"):
        two(shared, shared, SEQUENCE, **GRID)
    with pytest.raises(UserError, match="choose resolution=tile_flat"):
        model(projector=mlp_node(num_eos_tokens=1))
    flat = tile_node(tile_size=32, **FLAT)
    made = two(flat, flat, SEQUENCE, **GRID)
    assert [len(part) for part in made.vision(images_for(made, SIZES[:2]))] == [5 * 32, 4 * 32]
    gridless = clip_node(feature_layers=STI, resolution=tile_node(**FLAT))
    sti = Mllm(tiny_spec(encoders={"clip": gridless}), load=False)
    assert [len(part) for part in sti.vision(images_for(sti, SIZES[:2]))] == [5 * 20, 4 * 20]
    with pytest.raises(UserError, match="choose resolution=tile_flat"):
        Mllm(tiny_spec(encoders={"clip": {**gridless, "resolution": tile_node()}}), load=False)


def test_views_of_an_image_are_of_that_image() -> None:
    """Swapping two images of a batch swaps their tokens and changes nothing else."""
    made = model().eval()
    with torch.no_grad():
        one = made.vision(images_for(made, SIZES[:3]))
        other = made.vision(images_for(made, [SIZES[2], SIZES[1], SIZES[0]]))
    for part, twin in zip(one, reversed(other), strict=True):
        torch.testing.assert_close(part, twin, atol=1e-5, rtol=1e-4)
