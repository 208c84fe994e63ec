"""From the same weights and pixels, tiles give the numbers of transformers' LlavaNextForConditionalGeneration.

The designs coincide with a view of the whole first, unpadded maps and row-end tokens. What differs on purpose (the
colour of borders, a padded view of the whole, very narrow images) is said in mmexp/model/resolution/tile.py.
"""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig, LlavaNextForConditionalGeneration

from mmexp.evaluation.decode import greedy
from mmexp.interfaces import IGNORE_INDEX, IMAGE_TOKEN_ID, Batch, ImageBatch
from mmexp.model.mllm import Mllm
from tests.parity.test_llava import IMAGE_ID, THEIRS
from tests.tiny import TEXT, VISION, clip_node, tiny_spec

GRIDS = [[1, 1], [1, 2], [2, 1], [2, 2], [1, 3], [3, 1]]
SIZES = [(64, 64), (100, 37), (30, 90), (31, 32), (200, 61), (64, 60)]
NAMES = {**THEIRS, "vision.assembler.newline": "model.image_newline"}


def tile_node(**changes: Any) -> dict[str, Any]:
    node = {
        "_target_": "mmexp.model.resolution.tile.Tile",
        "grids": GRIDS,
        "pinpoints": None,
        "max_tiles": None,
        "tile_size": None,
        "fit": "pad",
        "global_view": "resize",
        "global_first": True,
        "assemble": "map",
        "unpad": True,
        "newline": True,
    }
    return {**node, **changes}


@pytest.fixture(scope="module")
def models() -> tuple[Mllm, LlavaNextForConditionalGeneration]:
    torch.manual_seed(0)
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=LlamaConfig(**{**TEXT, "max_position_embeddings": 1024}),
        image_token_id=IMAGE_ID,
        image_grid_pinpoints=[[rows * 32, columns * 32] for rows, columns in GRIDS],
        attn_implementation="sdpa",
    )
    theirs = LlavaNextForConditionalGeneration(config).eval()
    spec = tiny_spec(encoders={"clip": clip_node(resolution=tile_node())})
    spec["llm"]["config"]["max_position_embeddings"] = 1024
    ours = Mllm(spec, load=False).eval()
    state = theirs.state_dict()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            prefix = next(prefix for prefix in NAMES if name.startswith(prefix))
            parameter.copy_(state[name.replace(prefix, NAMES[prefix])])
    return ours, theirs


def make_batch(model: Mllm, sizes: list[tuple[int, int]]) -> Batch:
    """A row for each image: three text positions, the image, ten text positions; right padded."""
    generator = torch.Generator().manual_seed(0)
    counts = [model.vision.num_tokens(size) for size in sizes]
    length = max(counts) + 13
    ids = torch.randint(5, 290, (len(sizes), length), generator=generator)
    segments = torch.zeros(len(sizes), length, dtype=torch.long)
    for row, count in enumerate(counts):
        ids[row, 3 : 3 + count] = IMAGE_TOKEN_ID
        segments[row, count + 13 :] = -1
    labels = torch.where((ids == IMAGE_TOKEN_ID) | (segments < 0), IGNORE_INDEX, ids)
    resolution: Any = model.vision.resolution
    views = [resolution.views(noise(size)) for size in sizes]
    images = ImageBatch(
        views={"clip": torch.from_numpy(np.concatenate(views))}, view_counts=[len(view) for view in views], sizes=sizes
    )
    return Batch(
        input_ids=ids.masked_fill(segments < 0, 0),
        labels=labels,
        position_ids=torch.arange(length).expand(len(sizes), length).clone(),
        segment_ids=segments,
        prefix_ids=segments.clone(),
        images=images,
        num_conversations=len(sizes),
    )


def noise(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.random.default_rng(sum(size)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def their_inputs(model: Mllm, batch: Batch) -> dict[str, torch.Tensor]:
    """Views as their processor stacks them: (images, most views, 3, H, W)."""
    pixels = model.vision.encoders["clip"].normalize(batch.images.views["clip"])
    stacked = torch.nn.utils.rnn.pad_sequence(pixels.split(batch.images.view_counts), batch_first=True)
    return {
        "input_ids": torch.where(batch.input_ids == IMAGE_TOKEN_ID, IMAGE_ID, batch.input_ids),
        "attention_mask": (batch.segment_ids >= 0).long(),
        "pixel_values": stacked,
        "image_sizes": torch.tensor([(height, width) for width, height in batch.images.sizes]),
    }


def test_logits_and_loss(models) -> None:
    ours, theirs = models
    batch = make_batch(ours, SIZES)
    assert len(set(batch.images.view_counts)) > 2
    with torch.no_grad():
        reference = theirs(**their_inputs(ours, batch), labels=batch.labels)
        real = batch.segment_ids >= 0
        torch.testing.assert_close(ours.logits(batch)[real], reference.logits[real], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours(batch) / batch.num_valid, reference.loss, atol=1e-5, rtol=0)


def test_gradients(models) -> None:
    ours, theirs = models
    batch = make_batch(ours, SIZES[:3])
    (ours(batch) / batch.num_valid).backward()
    theirs(**their_inputs(ours, batch), labels=batch.labels).loss.backward()
    mine, reference = ours.vision.assembler.newline.grad, theirs.model.image_newline.grad
    assert mine.abs().max() > 0
    torch.testing.assert_close(mine, reference, atol=1e-6, rtol=1e-4)
    projector = ours.vision.projector[0].layers[0].weight.grad
    torch.testing.assert_close(projector, theirs.model.multi_modal_projector.linear_1.weight.grad, atol=1e-6, rtol=1e-4)


def test_greedy_generation(models) -> None:
    ours, theirs = models
    batch = make_batch(ours, SIZES[:4])
    answers = greedy(ours, batch, max_new_tokens=8, stop_ids=[])
    inputs = their_inputs(ours, batch)
    for row, answer in enumerate(answers):
        real = inputs["attention_mask"][row].bool()
        reference = theirs.generate(
            input_ids=inputs["input_ids"][row : row + 1, real],
            attention_mask=torch.ones(1, int(real.sum()), dtype=torch.long),
            pixel_values=inputs["pixel_values"][row : row + 1],
            image_sizes=inputs["image_sizes"][row : row + 1],
            max_new_tokens=8,
            min_new_tokens=8,
            do_sample=False,
            pad_token_id=0,
        )
        assert answer == reference[0, int(real.sum()) :].tolist()
