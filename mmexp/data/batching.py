"""Conversations to packed rows.

A *block* is what stays together in a row: one conversation, or (shared prefix) all conversations of a sample behind
one copy of their image. Blocks are a pure function of the sample, so they are made once and kept; a batch only places
them into rows. ``mmexp.interfaces.Batch`` says who sees whom.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmexp.data.images import LoadedImage
from mmexp.errors import UserError, nearest
from mmexp.interfaces import IGNORE_INDEX, Batch, ImageBatch, TokenizedSample

PACKINGS = ("none", "sequence", "shared_prefix")
PADDING = {"input_ids": 0, "labels": IGNORE_INDEX, "position_ids": 0, "segment_ids": -1, "prefix_ids": -1}


@dataclass(frozen=True, kw_only=True, slots=True)
class Batching:
    """How samples become batches; the node ``batching`` of a stage's data.

    Raises:
        UserError: an invalid value.
    """

    batch_size: int
    """Samples of an optimizer step, on all ranks together."""
    packing: str
    """``none``: a row for each conversation. ``sequence``: conversations share rows. ``shared_prefix``: the
    conversations of a sample share its image (each sees the image and itself)."""
    row_length: int | None
    """Positions of a packed row. Null: ``max_length``, and with ``shared_prefix`` no two samples in a row."""
    max_length: int
    """Positions of a conversation, visual tokens included; a longer one is a bad sample."""
    group_by_modality_length: bool
    """Batches of image samples or of text samples, micro-batches of samples of like length."""
    max_bad_samples: float
    """Bad samples that are skipped before training stops: a number, or below 1 a share of the mixture."""

    def __post_init__(self) -> None:
        if self.packing not in PACKINGS:
            raise UserError(f"batching.packing: unknown '{self.packing}'; {nearest(str(self.packing), PACKINGS)}")
        for name in ("batch_size", "max_length"):
            if getattr(self, name) < 1:
                raise UserError(f"batching.{name}: {getattr(self, name)} must be at least 1")
        if self.row_length is not None and self.row_length < self.max_length:
            raise UserError(f"batching.row_length: {self.row_length} is less than max_length {self.max_length}")
        if self.max_bad_samples < 0:
            raise UserError(f"batching.max_bad_samples: {self.max_bad_samples} must be at least 0")

    @property
    def capacity(self) -> int:
        """Positions that a packed row may have."""
        return self.row_length or self.max_length

    @property
    def shares_rows(self) -> bool:
        """Whether a row may hold several blocks."""
        return self.packing == "sequence" or (self.packing == "shared_prefix" and self.row_length is not None)


@dataclass(frozen=True, slots=True)
class Block:
    """Conversations that stay together, with at most one image.

    ``arrays`` holds what a ``Batch`` holds, (T,) int32 each; segments are counted from 0.
    """

    arrays: dict[str, np.ndarray]
    num_segments: int
    num_conversations: int
    has_image: bool

    @property
    def length(self) -> int:
        return len(self.arrays["input_ids"])

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes + 120 for array in self.arrays.values()) + 400


def make_blocks(conversations: Sequence[TokenizedSample], packing: str, capacity: int) -> list[Block]:
    """The blocks of one sample, whose conversations are about the same image.

    Args:
        conversations: of one sample, each at most ``capacity`` long.
        packing: see ``Batching``.
        capacity: positions of a block; a longer group is split and its image repeated.
    """
    if packing != "shared_prefix" or not _can_share(conversations):
        return [_single(conversation) for conversation in conversations]
    groups: list[list[TokenizedSample]] = [[]]
    length = 0
    for conversation in conversations:
        own = len(conversation.input_ids) - conversation.prefix_length
        if groups[-1] and length + own > capacity:
            groups.append([])
        length = length + own if groups[-1] else own + conversation.prefix_length
        groups[-1].append(conversation)
    return [_single(group[0]) if len(group) == 1 else _shared(group) for group in groups]


def place_blocks(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """First fit: numbers of the blocks of each row, in order."""
    rows: list[list[int]] = []
    free = np.zeros(len(lengths), dtype=np.int64)
    for number, length in enumerate(lengths):
        fitting = np.flatnonzero(free[: len(rows)] >= length)
        if len(fitting):
            row = int(fitting[0])
            rows[row].append(number)
        else:
            row = len(rows)
            rows.append([number])
            free[row] = capacity
        free[row] -= length
    return rows


def make_batch(blocks: Sequence[Block], images: Sequence[LoadedImage | None], rows: Sequence[Sequence[int]]) -> Batch:
    """Blocks in their rows, right padded; images in the order of their placeholders.

    Args:
        images: the image of each block.
        rows: from ``place_blocks``.
    """
    import torch

    width = max(sum(blocks[number].length for number in row) for row in rows)
    grids = {name: np.full((len(rows), width), value, dtype=np.int64) for name, value in PADDING.items()}
    for row, numbers in enumerate(rows):
        at = segment = 0
        for number in numbers:
            block = blocks[number]
            end = at + block.length
            for name, grid in grids.items():
                grid[row, at:end] = block.arrays[name]
            grids["segment_ids"][row, at:end] += segment
            grids["prefix_ids"][row, at:end] += segment
            at, segment = end, segment + block.num_segments
    shown = [images[number] for row in rows for number in row if blocks[number].has_image]
    return Batch(
        **{name: torch.from_numpy(grid) for name, grid in grids.items()},
        images=stack_images([image for image in shown if image is not None]) if shown else None,
        num_conversations=sum(block.num_conversations for block in blocks),
    )


def stack_images(images: Sequence[LoadedImage]) -> ImageBatch:
    """The views of all images; for an encoder whose features are stored for each of them, the features instead."""
    import torch

    views: dict[str, torch.Tensor] = {}
    features: dict[str, dict[int, torch.Tensor]] = {}
    for name in images[0].views:
        if all(name in image.features for image in images):
            features[name] = {
                tap: torch.from_numpy(np.concatenate([image.features[name][tap] for image in images]))
                for tap in images[0].features[name]
            }
        else:
            views[name] = torch.from_numpy(np.concatenate([image.views[name] for image in images]))
    return ImageBatch(
        views=views,
        view_counts=[image.num_views for image in images],
        sizes=[image.size for image in images],
        features=features,
    )


def _can_share(conversations: Sequence[TokenizedSample]) -> bool:
    """Not where a conversation trains its first own token (template ``plain``): only one can follow the image."""
    first = conversations[0]
    length = first.prefix_length
    return length > 0 and all(
        conversation.prefix_length == length < len(conversation.labels)
        and conversation.labels[length] == IGNORE_INDEX
        and np.array_equal(conversation.input_ids[:length], first.input_ids[:length])
        for conversation in conversations
    )


def _single(conversation: TokenizedSample) -> Block:
    length = len(conversation.input_ids)
    zeros = np.zeros(length, dtype=np.int32)
    arrays = {
        "input_ids": conversation.input_ids,
        "labels": conversation.labels,
        "position_ids": np.arange(length),
        "segment_ids": zeros,
        "prefix_ids": zeros,
    }
    return _block(arrays, num_segments=1, conversations=[conversation])


def _shared(conversations: Sequence[TokenizedSample]) -> Block:
    """Segment 0 is the prefix; positions of each conversation continue after it."""
    prefix = conversations[0].prefix_length
    own = [len(conversation.input_ids) - prefix for conversation in conversations]
    labels = [np.full(prefix, IGNORE_INDEX), *(conversation.labels[prefix:] for conversation in conversations)]
    arrays = {
        "input_ids": np.concatenate(
            [conversations[0].input_ids[:prefix], *(conversation.input_ids[prefix:] for conversation in conversations)]
        ),
        "labels": np.concatenate(labels),
        "position_ids": np.concatenate([np.arange(prefix), *(np.arange(prefix, prefix + length) for length in own)]),
        "segment_ids": np.repeat(np.arange(len(own) + 1), [prefix, *own]),
        "prefix_ids": np.zeros(prefix + sum(own)),
    }
    return _block(arrays, num_segments=len(own) + 1, conversations=conversations)


def _block(arrays: Mapping[str, Any], num_segments: int, conversations: Sequence[TokenizedSample]) -> Block:
    return Block(
        arrays={name: np.asarray(array, dtype=np.int32) for name, array in arrays.items()},
        num_segments=num_segments,
        num_conversations=len(conversations),
        has_image=conversations[0].num_visual_tokens > 0,
    )
