"""Samples of the mixture, ready for batches: tokenised, blocked, images decoded; kept in memory while there is room."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from mmexp.data.bad_samples import BadSample
from mmexp.data.batching import Batching, Block, make_blocks
from mmexp.data.images import ImageReader, LoadedImage
from mmexp.data.mixture import Mixture, Place
from mmexp.data.order import generator
from mmexp.data.tokenize import ConversationTokenizer
from mmexp.data.turns import Turns
from mmexp.errors import UserError
from mmexp.interfaces import Sample, TokenizedSample, Turn

MAX_SUBSTITUTES = 100

Value = TypeVar("Value")


class ByteBudget:
    """Bytes that several caches may fill together."""

    def __init__(self, limit: int) -> None:
        self.left = limit


class Cache(Generic[Value]):
    """Keeps values until the budget is spent: for random access over an epoch nothing beats first come, first kept."""

    def __init__(self, budget: ByteBudget) -> None:
        self.budget = budget
        self._kept: dict[Hashable, Value] = {}

    def get(self, key: Hashable) -> Value | None:
        return self._kept.get(key)

    def keep(self, key: Hashable, value: Value, nbytes: int) -> Value:
        if nbytes <= self.budget.left:
            self.budget.left -= nbytes
            self._kept[key] = value
        return value


@dataclass(frozen=True, slots=True)
class Prepared:
    """A sample's blocks and its image; ``image`` is None for a text-only sample."""

    blocks: list[Block]
    image: LoadedImage | None


class SampleReader:
    """Prepares samples of a mixture.

    Args:
        mixture: where samples come from.
        turns: how exchanges become conversations.
        tokenizer: for conversations.
        images: reads images, or None: samples are prepared without theirs (the blind baseline).
        batching: packing and lengths.
        cache_bytes: memory for prepared samples and images.
    """

    def __init__(
        self,
        *,
        mixture: Mixture,
        turns: Turns,
        tokenizer: ConversationTokenizer,
        images: ImageReader | None,
        batching: Batching,
        cache_bytes: int,
    ) -> None:
        self.mixture, self.turns, self.tokenizer = mixture, turns, tokenizer
        self.images, self.batching = images, batching
        self.varies = turns.varies or tokenizer.template.varies
        """Whether a sample reads differently at each position; what is drawn depends on the position alone."""
        self._still = generator(mixture.seed, "wording", 0)
        budget = ByteBudget(cache_bytes)
        self._blocks: Cache[tuple[list[Block], Path | None, str]] = Cache(budget)
        self._images: Cache[LoadedImage] = Cache(budget)
        self._bad: dict[Place, BadSample] = {}
        self._lengths: dict[Place, int] = {}

    def tokenize(self, place: Place, position: int) -> list[TokenizedSample]:
        """The conversations of the sample that stands at ``position``; of its image only the size is read.

        Raises:
            BadSample: see ``Mixture.sample``, ``ImageReader.size`` and ``ConversationTokenizer.conversation``.
        """
        sample = self.mixture.sample(place)
        size = self.images.size(sample.image, sample.origin) if self.images and sample.image else None
        return self._conversations(sample, None if size is None else sample.image, size, position)

    def length(self, place: Place, position: int) -> int:
        """Positions of the sample's longest conversation, visual tokens included; 0 for a bad sample."""
        if self.varies:
            return self._length(place, position)
        if place not in self._lengths:
            self._lengths[place] = self._length(place, position)
        return self._lengths[place]

    def _length(self, place: Place, position: int) -> int:
        try:
            return max(len(conversation.input_ids) for conversation in self.tokenize(place, position))
        except BadSample:
            return 0

    def has_image(self, place: Place) -> bool:
        """Whether the sample is trained with an image; not for a bad record."""
        try:
            return self.images is not None and self.mixture.sample(place).image is not None
        except BadSample:
            return False

    def prepare(self, place: Place, position: int) -> Prepared:
        """Raises ``BadSample``, the same each time."""
        if place in self._bad:
            raise self._bad[place]
        try:
            return self._prepare(place, position)
        except BadSample as error:
            if not self.varies:
                self._bad[place] = error
            raise

    def prepare_position(self, position: int, place: Place) -> tuple[Prepared, list[BadSample]]:
        """The sample at ``place`` for ``position``, or the first good substitute; and what was bad.

        Raises:
            UserError: many substitutes were tried and all are bad.
        """
        bad: list[BadSample] = []
        for attempt in range(1, MAX_SUBSTITUTES + 2):
            try:
                return self.prepare(place, position), bad
            except BadSample as error:
                bad.append(error)
                place = self.mixture.substitute(position, attempt)
        name = self.mixture.names[place[0]]
        raise UserError(f"dataset '{name}': all {len(bad)} samples drawn at random are bad; the last one: {bad[-1]}")

    def _prepare(self, place: Place, position: int) -> Prepared:
        kept = self._blocks.get(place)
        if kept is not None:
            blocks, path, origin = kept
            return Prepared(blocks, self.image(path, origin))
        sample = self.mixture.sample(place)
        path = sample.image if self.images else None
        image = self.image(path, sample.origin)
        conversations = self._conversations(sample, path, None if image is None else image.size, position)
        blocks = make_blocks(conversations, self.batching.packing, self.batching.capacity)
        if not self.varies:
            self._blocks.keep(place, (blocks, path, sample.origin), sum(block.nbytes for block in blocks))
        return Prepared(blocks, image)

    def image(self, path: Path | None, origin: str) -> LoadedImage | None:
        """An image with what is stored of its features, or None without path. Raises ``BadSample``."""
        if path is None or self.images is None:
            return None
        image = self._images.get(path)
        if image is None:
            image = self.images.read(path, origin)
            self._images.keep(path, image, image.nbytes)
        self.images.find_features(image)
        return image

    def _conversations(
        self, sample: Sample, image: Path | None, size: tuple[int, int] | None, position: int
    ) -> list[TokenizedSample]:
        rng = generator(self.mixture.seed, "wording", position) if self.varies else self._still
        return [
            self.tokenizer.conversation(self._worded(turns, sample, rng), image, size, sample.dataset, sample.origin)
            for turns in self.turns.split(sample.turns, sample.dataset, rng)
        ]

    def _worded(self, turns: Sequence[Turn], sample: Sample, rng: np.random.Generator) -> Sequence[Turn]:
        try:
            return self.tokenizer.template.word(turns, sample.dataset, rng)
        except UserError as error:
            raise UserError(f"{error} ({sample.origin})") from error
