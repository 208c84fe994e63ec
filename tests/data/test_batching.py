"""Packed rows: each trained token sees exactly what it sees in its own unpacked conversation."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmexp.data.batching import Batching, make_batch, make_blocks, place_blocks, stack_images
from mmexp.data.images import LoadedImage
from mmexp.errors import UserError
from mmexp.interfaces import IGNORE_INDEX, IMAGE_TOKEN_ID, Batch, TokenizedSample
from tests.data.making import batching


def conversation(ids: list[int], trained: list[int], prefix: int = 0) -> TokenizedSample:
    """``trained``: indices with a label. With a prefix, its last two positions are visual tokens."""
    input_ids = np.array(ids, dtype=np.int64)
    if prefix:
        input_ids[prefix - 2 : prefix] = IMAGE_TOKEN_ID
    labels = np.full(len(ids), IGNORE_INDEX, dtype=np.int64)
    labels[trained] = input_ids[trained]
    return TokenizedSample(
        input_ids=input_ids,
        labels=labels,
        prefix_length=prefix,
        image=Path("x.png") if prefix else None,
        num_visual_tokens=2 if prefix else 0,
        dataset="d",
        origin="f:1",
    )


def about_one_image(seed: int, questions: int) -> list[TokenizedSample]:
    rng = np.random.default_rng(seed)
    start = rng.integers(1, 1000, 5).tolist()
    made = []
    for _ in range(questions):
        length = int(rng.integers(3, 9))
        own = rng.integers(1, 1000, length).tolist()
        made.append(conversation(start + own, [5 + length - 2, 5 + length - 1], prefix=5))
    return made


SAMPLES = [
    about_one_image(0, 3),
    [conversation([7, 8, 9, 10], [2, 3])],
    about_one_image(1, 1),
    about_one_image(2, 6),
    [conversation([1, 2, 3], [1, 2]), conversation([4, 5], [1])],
]


def packed(samples, settings: Batching) -> Batch:
    blocks, images = [], []
    for number, sample in enumerate(samples):
        made = make_blocks(sample, settings.packing, settings.capacity)
        image = LoadedImage((8, 8), 1, {"clip": np.full((1, 3, 2, 2), number, dtype=np.uint8)})
        blocks += made
        images += [image if sample[0].image else None] * len(made)
    lengths = [block.length for block in blocks]
    rows = place_blocks(lengths, settings.capacity) if settings.shares_rows else [[n] for n in range(len(blocks))]
    return make_batch(blocks, images, rows)


def sees(batch: Batch, row: int, query: int, key: int) -> bool:
    """The rule of ``mmexp.interfaces.Batch``, in its own words."""
    segments, prefixes = batch.segment_ids[row], batch.prefix_ids[row]
    return key <= query and segments[key] >= 0 and segments[key] in (segments[query], prefixes[query])


def trained_contexts(batch: Batch) -> Counter:
    """For each label: what its predictor sees, as (position, id) pairs, and the label."""
    found: Counter = Counter()
    for row in range(len(batch.input_ids)):
        for at in range(1, batch.input_ids.shape[1]):
            if batch.labels[row, at] == IGNORE_INDEX:
                continue
            seen = [key for key in range(at) if sees(batch, row, at - 1, key)]
            context = tuple((int(batch.position_ids[row, key]), int(batch.input_ids[row, key])) for key in seen)
            found[context, int(batch.labels[row, at])] += 1
    return found


def expected_contexts(samples) -> Counter:
    found: Counter = Counter()
    for conversations in samples:
        for one in conversations:
            for at in np.flatnonzero(one.labels != IGNORE_INDEX):
                found[tuple(enumerate(one.input_ids[:at].tolist())), int(one.labels[at])] += 1
    return found


SETTINGS = [
    batching(packing="none"),
    batching(packing="sequence", max_length=20),
    batching(packing="sequence", max_length=20, row_length=64),
    batching(packing="shared_prefix", max_length=64),
    batching(packing="shared_prefix", max_length=20),
    batching(packing="shared_prefix", max_length=64, row_length=64),
    batching(packing="shared_prefix", max_length=20, row_length=128),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.packing}-{s.max_length}-{s.row_length}")
def test_every_label_has_the_context_of_its_own_conversation(settings):
    batch = packed(SAMPLES, settings)
    assert trained_contexts(batch) == expected_contexts(SAMPLES)
    assert batch.num_conversations == sum(len(sample) for sample in SAMPLES)
    assert batch.num_valid == sum(expected_contexts(SAMPLES).values())


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.packing}-{s.max_length}-{s.row_length}")
def test_images_come_in_the_order_of_their_placeholders(settings):
    batch = packed(SAMPLES, settings)
    colours = batch.images.views["clip"][:, 0, 0, 0].tolist()
    assert int((batch.input_ids == IMAGE_TOKEN_ID).sum()) == 2 * len(colours)
    starts = {tuple(sample[0].input_ids[:3].tolist()): number for number, sample in enumerate(SAMPLES)}
    owners = []
    for row in batch.input_ids.tolist():
        places = [place for place, identity in enumerate(row) if identity == IMAGE_TOKEN_ID][::2]
        owners += [starts[tuple(row[place - 3 : place])] for place in places]
    assert owners == colours
    assert batch.images.view_counts == [1] * len(colours)
    assert batch.images.sizes == [(8, 8)] * len(colours)


def test_padding_is_on_the_right_and_inert():
    batch = packed(SAMPLES, batching(packing="none"))
    for row, length in enumerate([len(one.input_ids) for sample in SAMPLES for one in sample]):
        assert (batch.segment_ids[row, :length] == 0).all()
        assert (batch.segment_ids[row, length:] == -1).all()
        assert (batch.prefix_ids[row, length:] == -1).all()
        assert (batch.labels[row, length:] == IGNORE_INDEX).all()
        assert (batch.input_ids[row, length:] == 0).all()
        assert batch.position_ids[row, :length].tolist() == list(range(length))


def test_shared_prefix_stores_an_image_once_and_splits_long_groups():
    sample = about_one_image(2, 6)
    whole = make_blocks(sample, "shared_prefix", capacity=1000)
    assert [block.length for block in whole] == [5 + sum(len(one.input_ids) - 5 for one in sample)]
    split = make_blocks(sample, "shared_prefix", capacity=20)
    assert len(split) > 1
    assert all(block.length <= 20 for block in split)
    assert sum(block.num_conversations for block in split) == 6


def test_no_sharing_where_the_answer_follows_the_image():
    captions = [conversation([1, 2, 3, 4, number], [3, 4], prefix=3) for number in (5, 6)]
    assert len(make_blocks(captions, "shared_prefix", capacity=100)) == 2
    batch = packed([captions], batching(packing="shared_prefix"))
    assert trained_contexts(batch) == expected_contexts([captions])


def test_prompts_without_text_after_the_image():
    prompt = conversation([1, 2, 3], [], prefix=3)
    assert [block.length for block in make_blocks([prompt, prompt], "shared_prefix", capacity=100)] == [3, 3]


def test_first_fit():
    assert place_blocks([5, 6, 4, 3, 2], capacity=10) == [[0, 2], [1, 3], [4]]
    assert place_blocks([10, 10, 1], capacity=10) == [[0], [1], [2]]
    assert place_blocks([], capacity=10) == []


def test_rows_are_bounded_by_row_length():
    batch = packed(SAMPLES, batching(packing="sequence", max_length=20, row_length=30))
    assert batch.input_ids.shape[1] <= 30
    assert len(batch.input_ids) < sum(len(sample) for sample in SAMPLES)


def test_features_replace_views_only_where_all_images_have_them():
    def image(number: int, stored: bool) -> LoadedImage:
        views = {name: np.full((1, 3, 2, 2), number, dtype=np.uint8) for name in ("clip", "sam")}
        features = {"clip": {4: np.full((1, 5, 6), number, dtype=np.float32)}} if stored else {}
        return LoadedImage((2, 2), 1, views, features)

    both = stack_images([image(0, True), image(1, True)])
    assert set(both.views) == {"sam"}
    assert both.features["clip"][4].shape == (2, 5, 6)
    assert both.features["clip"][4][1, 0, 0] == 1
    mixed = stack_images([image(0, True), image(1, False)])
    assert set(mixed.views) == {"clip", "sam"}
    assert mixed.features == {}


def test_text_only_batches_have_no_images():
    assert packed([SAMPLES[1], SAMPLES[4]], batching()).images is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"packing": "shared"}, r"batching\.packing: unknown 'shared'; did you mean 'shared_prefix'"),
        ({"batch_size": 0}, r"batching\.batch_size"),
        ({"max_length": 0}, r"batching\.max_length"),
        ({"row_length": 100}, r"batching\.row_length: 100 is less than max_length 256"),
        ({"max_bad_samples": -1}, r"batching\.max_bad_samples"),
    ],
)
def test_impossible_settings(change, message):
    with pytest.raises(UserError, match=message):
        batching(**change)
