"""Direct resize that ignores the aspect ratio (Honeybee; called squash elsewhere)."""

from typing import TYPE_CHECKING

from mmexp.model.resolution.single_view import SingleView

if TYPE_CHECKING:
    from PIL import Image


class Resize(SingleView):
    """Bicubic resize to the input size, without cropping or padding."""

    def fit(self, image: "Image.Image") -> "Image.Image":
        from PIL import Image

        size = (self.width, self.height)
        return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
