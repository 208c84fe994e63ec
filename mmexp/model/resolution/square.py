"""CLIP's own preprocessing: resize to cover the input, then crop (papers/llava15.md, section 6)."""

from typing import TYPE_CHECKING

from mmexp.model.resolution.single_view import SingleView

if TYPE_CHECKING:
    from PIL import Image


class Square(SingleView):
    """Bicubic resize that keeps the aspect ratio and covers the input size, then a centre crop.

    For a square input the shortest edge gets the side's length and the other ``int(side * long / short)``, as in
    transformers' CLIPImageProcessor.
    """

    def fit(self, image: "Image.Image") -> "Image.Image":
        from PIL import Image

        width, height = image.size
        if width * self.height <= height * self.width:
            covering = (self.width, max(self.height, int(self.width * height / width)))
        else:
            covering = (max(self.width, int(self.height * width / height)), self.height)
        resized = image if image.size == covering else image.resize(covering, Image.Resampling.BICUBIC)
        left, top = (covering[0] - self.width) // 2, (covering[1] - self.height) // 2
        return resized.crop((left, top, left + self.width, top + self.height))
