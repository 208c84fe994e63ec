"""Images from disk to the views of each encoder, or to their stored features."""

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mmexp.data.bad_samples import BadSample
from mmexp.data.tar_members import is_member, read_member
from mmexp.errors import UserError
from mmexp.interfaces import ImageSize, Resolution

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image


class Features(Protocol):
    """Stored features of frozen encoders: what the encoder ``name`` gives for a view, tap -> (N, D), or None."""

    def lookup(self, name: str, view: np.ndarray) -> Mapping[int, np.ndarray] | None: ...


@dataclass(slots=True)
class LoadedImage:
    """One image: per encoder its views (views, 3, H, W) uint8, and the stored features that replace them, if any."""

    size: ImageSize
    num_views: int
    views: dict[str, np.ndarray]
    features: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds; features are views of memory-mapped files."""
        return sum(view.nbytes for view in self.views.values()) + 1000


class ImageReader:
    """Reads images.

    Args:
        resolutions: encoder -> how an image becomes its views; all must make the same number of views.
        features: where stored features are looked up, or None.
    """

    def __init__(self, *, resolutions: Mapping[str, Resolution], features: Features | None) -> None:
        self.resolutions, self.features = resolutions, features

    def size(self, path: Path, origin: str) -> ImageSize:
        """(width, height), read from the file's header. Raises ``BadSample``."""
        with _opened(path, origin) as image:
            size = image.size
        self._check(size, origin)
        return size

    def read(self, path: Path, origin: str) -> LoadedImage:
        """Decode an image and make its views.

        Raises:
            BadSample: the file is missing or cannot be decoded, or no resolution takes its size.
            UserError: the encoders' resolutions make different numbers of views.
        """
        with _opened(path, origin) as image:
            decoded = image.convert("RGB")
        self._check(decoded.size, origin)
        views = {name: resolution.views(decoded) for name, resolution in self.resolutions.items()}
        counts = {name: len(view) for name, view in views.items()}
        if len(set(counts.values())) != 1:
            raise UserError(f"model.encoders.*.resolution: encoders must make equally many views of an image: {counts}")
        return LoadedImage(decoded.size, next(iter(counts.values())), views)

    def _check(self, size: ImageSize, origin: str) -> None:
        """Raises ``BadSample`` for a size that a resolution cannot divide into views."""
        for resolution in self.resolutions.values():
            try:
                resolution.num_views(size)
            except UserError as error:
                raise BadSample(origin, str(error)) from error

    def find_features(self, image: LoadedImage) -> None:
        """Look up the stored features of the image's views and remember them in ``image.features``."""
        if self.features is None:
            return
        for name in image.views.keys() - image.features.keys():
            parts = [self.features.lookup(name, view) for view in image.views[name]]
            stored = [part for part in parts if part is not None]
            if len(stored) == len(parts):
                image.features[name] = {tap: _joined([part[tap] for part in stored]) for tap in stored[0]}


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """(views, N, D); a single view stays where it is, so that a memory-mapped array is not read."""
    return parts[0][None] if len(parts) == 1 else np.stack(parts)


@contextmanager
def _opened(path: Path, origin: str) -> "Iterator[Image.Image]":
    from PIL import Image

    try:
        with Image.open(BytesIO(read_member(path)) if is_member(path) else path) as image:
            yield image
    except FileNotFoundError as error:
        raise BadSample(origin, f"image '{path}': no such file") from error
    # What Pillow's decoders raise for broken files, besides OSError (UnidentifiedImageError is one).
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise BadSample(origin, f"image '{path}' cannot be read: {error}") from error
