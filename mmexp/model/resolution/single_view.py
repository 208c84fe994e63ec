"""What all resolutions with one view per image share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmexp.errors import UserError
from mmexp.interfaces import Grid, ImageSize

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

RGB = tuple[int, int, int]


class SingleView(ABC):
    """One view of the encoder's input size; a subclass says how an image is fitted into it.

    Args:
        image_size: side of the square input, or (height, width), in pixels. A fact of the encoder.
        mean: the encoder's mean colour, 0..1 per channel: what borders are filled with. A fact of the encoder.

    Raises:
        UserError: not one or two positive numbers.
    """

    def __init__(self, *, image_size: int | Sequence[int], mean: Sequence[float]) -> None:
        sides = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
        if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
            raise UserError(f"encoder.image_size: {image_size} must be a number of pixels, or [height, width]")
        self.height, self.width = sides
        # As the official code: truncated, not rounded.
        self.fill: RGB = (int(mean[0] * 255), int(mean[1] * 255), int(mean[2] * 255))

    @abstractmethod
    def fit(self, image: "Image.Image") -> "Image.Image":
        """RGB image of any size -> RGB image of (width, height)."""

    @property
    def scheme(self) -> dict[str, object]:
        return {"views": "one"}

    @property
    def sizes(self) -> list[ImageSize]:
        return [(self.width, self.height)]

    def num_views(self, size: ImageSize) -> int:
        return 1

    def views(self, image: "Image.Image") -> "np.ndarray":
        """(1, 3, height, width) uint8."""
        import numpy as np

        fitted = self.fit(image if image.mode == "RGB" else image.convert("RGB"))
        return np.ascontiguousarray(np.asarray(fitted).transpose(2, 0, 1))[None]

    def num_tokens(self, size: ImageSize, tokens_per_view: int, grid: Grid | None) -> int:
        return tokens_per_view

    def assembler(self, out_dim: int) -> "torch.nn.Module":
        from mmexp.model.resolution.assembly import JoinViews

        return JoinViews()
