"""All seams on one page: the nouns that cross a boundary and the parts that a user can add.

The way of the data (DESIGN.md section 4)::

    sample -> mixture -> template -> turns -> token ids + labels -> packed batch
    image  -> views -> encoder -> feature layers -> fusion -> projector -> visual tokens
    visual tokens + token ids -> merged sequence -> LLM -> loss | answer -> metric -> result

Letters in shapes: B sequences, T text positions, I images, W views (all views of all images of a batch),
N encoder tokens, Q projector tokens, D width, V vocabulary.

This module imports torch only for type checkers and for the base classes' users: data workers and the CLI
import it freely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

IGNORE_INDEX = -100
"""Label of a position that carries no loss."""
IMAGE_TOKEN_ID = -200
"""Placeholder id: stands once in ``input_ids`` for each visual token; never reaches the LLM's embedding."""

ImageSize = tuple[int, int]
"""(width, height) in pixels, the order of PIL."""
Grid = tuple[int, int]
"""(rows, columns) of a feature map."""


# ---------------------------------------------------------------- data


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One exchange: what is asked and what is answered."""

    question: str
    answer: str
    response_format: str | None = None
    """Name of the response-format prompt that fits this question (``word``, ``letter``, ...), or None."""
    family: str = ""
    """Question family or task label; scores are reported by it."""
    choices: tuple[str, ...] = ()
    """Texts that the answer is a letter of, A first; they do not stand in ``question``."""
    fields: tuple[tuple[str, str], ...] = ()
    """Further texts of the record by name (``context``, ``bbox``), for wordings that use them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One example of a source: at most one image and its exchanges."""

    id: str
    dataset: str
    image: Path | None
    turns: tuple[Turn, ...]
    origin: str
    """``file:line`` (or ``file[index]``) it came from, for messages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedSample:
    """One conversation as ids, final in length before the model sees it.

    ``prefix_length`` positions at the start (system prompt, image) are what conversations about the same
    image share; shared-prefix packing stores them once. ``image`` is None for a text-only sample, and then
    ``input_ids`` has no ``IMAGE_TOKEN_ID``.
    """

    input_ids: np.ndarray  # (T,) int64
    labels: np.ndarray  # (T,) int64, IGNORE_INDEX where no loss
    prefix_length: int
    image: Path | None
    num_visual_tokens: int
    dataset: str
    origin: str


@dataclass(kw_only=True, slots=True)
class ImageBatch:
    """The images of a batch as each encoder wants them.

    ``views[name]`` is (W, 3, H, W_px) uint8, not normalised; ``view_counts`` says how many of the W belong to
    each image (all encoders share it); ``features`` replaces ``views`` when the feature cache has the taps:
    name -> tap -> (W, N, D).
    """

    views: dict[str, torch.Tensor]
    view_counts: list[int]
    sizes: list[ImageSize]
    features: dict[str, dict[int, torch.Tensor]] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class Batch:
    """Packed rows. Position q attends to k where ``k <= q`` and k is in q's own segment or in q's prefix segment.

    ``segment_ids`` number the conversations (or the shared image prefixes) of a row; -1 is padding.
    ``prefix_ids`` name the segment that a position also sees; its own segment where there is none.
    Placeholders, read row by row, are the images' visual tokens in the order of ``images``.
    """

    input_ids: torch.Tensor  # (B, T) int64
    labels: torch.Tensor  # (B, T) int64
    position_ids: torch.Tensor  # (B, T) int64, restart in each segment, go on after a shared prefix
    segment_ids: torch.Tensor  # (B, T) int64
    prefix_ids: torch.Tensor  # (B, T) int64
    images: ImageBatch | None
    num_conversations: int

    @property
    def num_valid(self) -> int:
        """Label positions that carry loss; the first position of a row never does (nothing predicts it)."""
        return int((self.labels[:, 1:] != IGNORE_INDEX).sum())


class Source(Protocol):
    """A dataset on disk, read lazily. Errors are ``UserError`` with file and line."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


# ---------------------------------------------------------------- vision


@dataclass(frozen=True, slots=True)
class FeatureShape:
    """What is known of a feature map before any tensor flows."""

    num_tokens: int
    dim: int
    grid: Grid | None
    """None where the tokens have no rows and columns (STI's 720)."""


@dataclass(slots=True)
class FeatureMap:
    """Features of W views: tokens (W, N, D) in row-major order of ``grid``."""

    tokens: torch.Tensor
    grid: Grid | None

    @property
    def shape(self) -> FeatureShape:
        return FeatureShape(self.tokens.shape[1], self.tokens.shape[2], self.grid)


Inject = Callable[["torch.Tensor"], "torch.Tensor"]
"""Maps the patch tokens (W, N, D) after a block to what the next block gets (class tokens are kept aside)."""


class Encoder(Protocol):
    """A vision encoder that yields feature maps at any depth.

    A *tap* is a depth: 0 is the stem (patch + position embedding), k the raw output of block k (1-based), without
    any final norm; negative taps are not allowed here (``feature_layers`` resolves them). For hierarchical
    networks the blocks are the stages. Only the blocks that the deepest tap needs are run.
    """

    depth: int

    def shape(self, tap: int) -> FeatureShape: ...

    def normalize(self, views: torch.Tensor) -> torch.Tensor:
        """(W, 3, H, W_px) uint8 -> float with this encoder's mean and std."""

    def forward(
        self, pixels: torch.Tensor, taps: Sequence[int], inject: Mapping[int, Inject] | None = None
    ) -> list[FeatureMap]: ...


class Resolution(Protocol):
    """How an image becomes the views of one encoder, and how the views' visual tokens become the image's."""

    @property
    def scheme(self) -> Mapping[str, object]:
        """Setting -> value, of all that decides how images are cut and put together; encoders of a model share it."""

    @property
    def sizes(self) -> Sequence[ImageSize]:
        """An image size for each way in which images are cut; between them they have the most visual tokens."""

    def num_views(self, size: ImageSize) -> int: ...

    def views(self, image: Image.Image) -> np.ndarray:
        """(views, 3, H, W_px) uint8."""

    def num_tokens(self, size: ImageSize, tokens_per_view: int, grid: Grid | None) -> int:
        """Visual tokens of an image of this size after assembly."""

    def assembler(self, out_dim: int) -> torch.nn.Module:
        """Module: (tokens (W, Q, D), grid, view_counts, sizes) -> list of (Q_i, D), one per image."""


class FeatureLayers(Protocol):
    """Several depths of one encoder -> one feature map. Constructed with the encoder's ``depth`` and ``shapes``."""

    taps: tuple[int, ...]
    out_shape: FeatureShape

    def forward(self, maps: list[FeatureMap]) -> FeatureMap: ...


class Fusion(Protocol):
    """Several encoders' maps -> one or more streams.

    ``extra_taps`` says what it wants of an encoder beyond its layer selection; ``maps[name][0]`` is the selected
    map, the extra taps follow. ``run_order`` and ``inject`` serve fusions that add features between blocks.
    """

    streams: list[FeatureShape]

    def extra_taps(self) -> dict[str, tuple[int, ...]]: ...

    def run_order(self) -> list[str]: ...

    def inject(self, name: str, done: Mapping[str, list[FeatureMap]]) -> Mapping[int, Inject] | None: ...

    def forward(self, maps: Mapping[str, list[FeatureMap]]) -> list[FeatureMap]: ...


class Projector(Protocol):
    """One stream (W, N, D_in) -> (W, Q, D_llm). Built with ``in_dim``, ``in_tokens``, ``in_grid``, ``out_dim``."""

    num_tokens: int
    out_dim: int
    grid: Grid | None

    def forward(self, features: FeatureMap) -> FeatureMap: ...


class TokenReduction(Protocol):
    """Fewer visual tokens after the projector; ``none`` is a class of its own."""

    num_tokens: int
    grid: Grid | None

    def forward(self, features: FeatureMap) -> FeatureMap: ...


# ---------------------------------------------------------------- others' files


class Converter(Protocol):
    """A dataset's official raw files -> records of the JSON lines that the sources read."""

    needs: str
    """What must be in the folder, for help and messages."""

    def records(self, raw: Path) -> Iterator[dict[str, object]]: ...


class Importer(Protocol):
    """A released checkpoint (a file or a folder) -> tensors under the names that ``trainable`` sees, such as
    ``projector.0.linear.weight`` (0 is the first stream)."""

    def tensors(self, checkpoint: Path) -> Mapping[str, torch.Tensor]: ...


# ---------------------------------------------------------------- work


class Decay(Protocol):
    """How the learning rate falls once it is warm."""

    def factor(self, progress: float) -> float:
        """Share of the highest rate, 0..1, where ``progress`` of the steps after the warm-up are done, 0..1."""


class Scorer(Protocol):
    """What validates a model in the middle of its training. Built with ``batch_size``."""

    def __call__(self, model: torch.nn.Module) -> dict[str, float]:
        """Metrics by name; the model is left as it was."""


class Stage(Protocol):
    """A unit of work that is made once and shared: training stage, lab artefact, evaluation.

    Constructed from its node in the config (``runtime`` apart) with every ``stage:NAME/sub`` reference replaced
    by a path. ``run`` writes its products into ``workdir`` and continues from what a killed run left there.
    """

    VERSION: int
    """Part of the stage key: raised when the code changes what comes out."""

    def run(self, workdir: Path, runtime: Mapping[str, object]) -> None: ...
