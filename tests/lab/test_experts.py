"""The six experts: their stages fit the encoders that use them; objectives and probes measure what they say."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmexp.errors import UserError
from mmexp.instantiate import instantiate
from mmexp.interfaces import FeatureMap, FeatureShape
from mmexp.lab.contrastive import WordContrast, words_in, words_of
from mmexp.lab.detection import Detection
from mmexp.lab.drawn import NOTHING, Drawn, draw_batch
from mmexp.lab.masked_patches import MaskedPatches
from mmexp.lab.probes import ProbeBudget, chance, examine, probe
from mmexp.lab.reading import means_of_signs, with_pages
from mmexp.lab.rng import Rng
from mmexp.lab.segmentation import Segmentation
from mmexp.lab.world import SHAPES
from tests.lab.making import lab_config, spec
from tests.lab.test_stages import small

EXPERTS = ("clip", "convnext", "sam", "dinov2", "pix2struct", "eva02")
GRID = (8, 8)
BUDGET = ProbeBudget(depths=[0, 1], train=120, test=60, steps=60, batch_size=64, lr=1e-2, hidden=16)


def batch(size: int = 6) -> Drawn:
    return draw_batch(spec(), size, 64, Rng(5), held_out=False)


@pytest.mark.parametrize("name", EXPERTS)
def test_an_expert_fits_the_encoder_that_uses_it(name: str, tmp_path: Path) -> None:
    small(f"lab_{name}", steps=2).run(tmp_path, {})
    node = dict(lab_config(f"encoder=[{name}]")["model"]["encoders"][name])
    parts = {key: value for key, value in node.items() if key not in ("resolution", "feature_layers")}
    encoder = instantiate({**parts, "weights": str(tmp_path / "model.safetensors")}, f"model.encoders.{name}")
    views = torch.zeros(1, 3, encoder.image_size, encoder.image_size, dtype=torch.uint8)
    maps = encoder(encoder.normalize(views), range(encoder.depth + 1))
    assert encoder.depth >= 4
    assert maps[-1].shape == encoder.shape(encoder.depth) == FeatureShape(64, 64, GRID)
    assert sum(value.numel() for value in encoder.parameters()) < 250_000
    found = json.loads((tmp_path / "check.json").read_text())
    for depth in found["probes"].values():
        assert set(depth) == {"color", "shape", "size", "cell", "tens", "ones", "word", "count"}


def test_sam_sees_no_colour(tmp_path: Path) -> None:
    """Images that differ in red and green are the same to it."""
    small("lab_sam", steps=2).run(tmp_path, {})
    node = dict(lab_config("encoder=[sam]")["model"]["encoders"]["sam"])
    parts = {key: value for key, value in node.items() if key not in ("resolution", "feature_layers")}
    encoder = instantiate({**parts, "weights": str(tmp_path / "model.safetensors")}, "model.encoders.sam")
    views = batch(1).views
    turned = views[:, [1, 0, 2]]
    assert not torch.equal(views, turned)
    for depth in range(5):
        one, other = (encoder(encoder.normalize(seen), [depth])[0].tokens for seen in (views, turned))
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_token_labels_are_those_of_the_pixels() -> None:
    drawn = batch(20)
    owners = drawn.owners(GRID)
    for image, (scene, masks) in enumerate(zip(drawn.scenes, drawn.masks, strict=True)):
        for token in range(64):
            top, left = token // 8 * 8, token % 8 * 8
            pixels = masks[:, top : top + 8, left : left + 8].sum(axis=(1, 2))
            owner = int(owners[image, token])
            if pixels.any():
                assert pixels[owner] == pixels.max()
                assert drawn.token_labels("shape", GRID)[image, token] == SHAPES.index(scene.objects[owner].shape)
            else:
                assert drawn.token_labels("shape", GRID)[image, token] == NOTHING


def test_masks_and_boxes_are_those_of_the_objects() -> None:
    drawn = batch(4)
    facts: Any = {"shape": FeatureShape(64, 64, GRID), "spec": spec()}
    patches = Segmentation(channel=2, min_gain=0.2, mask_weight=1.0, **facts).masks(drawn)
    whole = patches.view(4, 8, 8, 8, 8).transpose(2, 3).reshape(4, 64, 64)
    for image, masks in enumerate(drawn.masks):
        assert np.array_equal(whole[image].numpy(), masks.any(axis=0))
    detection = Detection(box_weight=1.0, **facts)
    boxes, owners, covered = detection.boxes(drawn), drawn.owners(GRID), detection.covered(drawn)
    for image, token in covered.nonzero().tolist():
        mask = drawn.masks[image][owners[image, token]]
        y, x = np.nonzero(mask)
        centre = np.array([token % 8 * 8 + 4, token // 8 * 8 + 4] * 2)
        found = boxes[image, token].numpy() * 16 + centre
        assert np.allclose(found, [x.min(), y.min(), x.max() + 1, y.max() + 1])


def test_pages_are_full_of_signs_that_lie_where_they_lay() -> None:
    drawn = batch(30)
    views, sources = with_pages(drawn, 20, Rng(2))
    for image, scene in enumerate(drawn.scenes):
        signs = {int(source) for source in sources[image].flatten()} - {NOTHING}
        assert (image in signs) == (scene.sign is not None)
        if image >= 20:
            assert torch.equal(views[image], drawn.views[image]) and signs <= {image}
        for row, column in (sources[image] != NOTHING).nonzero().tolist():
            part = (slice(None), slice(16 * row, 16 * row + 16), slice(16 * column, 16 * column + 16))
            sign = drawn.scenes[int(sources[image, row, column])].sign
            assert sign and sign.row == row and column - sign.column in (0, 1)
            assert torch.equal(views[image][part], drawn.views[int(sources[image, row, column])][part])
    assert (sources[:20] != NOTHING).sum() > 3 * (sources[20:] != NOTHING).sum()


def test_the_mean_of_a_sign_is_that_of_its_tokens() -> None:
    sources = torch.tensor([[NOTHING, 1, 1, 0], [1, NOTHING, NOTHING, 1]])
    means, scenes = means_of_signs(torch.arange(8.0).view(2, 4, 1), sources)
    assert sorted(zip(means.flatten().tolist(), scenes.tolist(), strict=True)) == [(1.5, 1), (3.0, 0), (5.5, 1)]


def test_an_image_tells_the_words_of_its_caption() -> None:
    """The word term alone: 0 when the tokens say each word of the caption and no other."""
    drawn = batch(4)
    wanted = words_in(drawn.scenes)
    for scene, row in zip(drawn.scenes, wanted, strict=True):
        assert set(row.nonzero()[:, 0].tolist()) == set(words_of(scene)) and row.max() == 1
    facts: Any = {"embed_dim": 8, "negatives": ["shape"], "shape": FeatureShape(64, wanted.shape[1], GRID)}
    objective, plain = (WordContrast(place_weight=0.5, word_weight=weight, **facts) for weight in (1.0, 0.0))
    plain.load_state_dict(objective.state_dict())
    with torch.no_grad():
        objective.told.weight.copy_(torch.eye(wanted.shape[1]))
        objective.told.bias.zero_()
    tokens = (40 * wanted - 20)[:, None].repeat(1, 64, 1)

    def term(tokens: torch.Tensor) -> float:
        with torch.no_grad():
            losses = [part.loss(lambda views: FeatureMap(tokens, GRID), drawn, Rng(1)) for part in (objective, plain)]
        return float(losses[0] - losses[1])

    assert abs(term(tokens)) < 1e-4
    assert term(tokens.flip(0)) > 10


def test_masked_patches_reach_the_loss_only_through_their_neighbours() -> None:
    """What is missing is not in what the network sees, and the loss is over what is missing."""
    drawn = batch(2)
    objective = MaskedPatches(masked_percent=40, shape=FeatureShape(64, 64, GRID), image_size=64)
    seen: list[torch.Tensor] = []

    def look(views: torch.Tensor) -> FeatureMap:
        seen.append(views)
        return FeatureMap(torch.zeros(2, 64, 64), GRID)

    first = objective.loss(look, drawn, Rng(1))
    hidden = (seen[0] == 0.5).all(1)
    assert 0.3 < hidden.float().mean() < 0.5
    outside = replace(drawn, views=torch.where(hidden[:, None], drawn.views, drawn.views // 2))
    again = objective.loss(look, outside, Rng(1))
    variance = [part.views.float().var() for part in (drawn, outside)]
    torch.testing.assert_close(first * variance[0], again * variance[1])


def test_probes_find_what_is_there_and_nothing_else() -> None:
    random = torch.Generator().manual_seed(0)
    labels = {name: torch.randint(classes, (600,), generator=random) for name, classes in (("size", 2), ("color", 6))}
    features = torch.randn(600, 8, generator=random)
    features[:, 0] = labels["size"] * 4 - 2 + 0.1 * features[:, 0]
    parts = [{name: value[part] for name, value in labels.items()} for part in (slice(400), slice(400, 600))]
    found = probe(features[:400], parts[0], features[400:], parts[1], BUDGET, seed=0)
    assert found["size"]["linear"] > 97 and found["size"]["mlp"] > 97
    assert max(found["color"].values()) < 35


def test_probes_of_an_untrained_encoder_are_repeatable_and_its_depths_are_checked() -> None:
    parts = lab_config()["lab"]["stages"]["lab_clip"]["encoder"]
    encoder = instantiate(parts, "encoder").eval()
    first, second = (examine(encoder, spec(), BUDGET, seed=3) for _ in range(2))
    assert first == second and set(first) == {"0", "1"}
    levels = chance(spec(), BUDGET, seed=3)
    assert 15 < levels["color"] < 35 and 50 <= levels["size"] < 65
    assert first["0"]["color"]["linear"] > levels["color"] + 30
    with pytest.raises(UserError, match=r"probes.depths: 9 is not in this encoder: it has 0 \(stem\) to 5"):
        examine(encoder, spec(), replace(BUDGET, depths=[9]), seed=3)
