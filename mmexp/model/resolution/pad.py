"""No cropping: borders in the mean colour, then resize (LLaVA-1.5, papers/llava15.md, section 6)."""

from typing import TYPE_CHECKING

from mmexp.model.resolution.single_view import SingleView

if TYPE_CHECKING:
    from PIL import Image


class Pad(SingleView):
    """The image centred on a canvas of the input's aspect ratio, filled with the mean colour, resized bicubically."""

    def fit(self, image: "Image.Image") -> "Image.Image":
        from PIL import Image

        width, height = image.size
        canvas = (max(width, height * self.width // self.height), max(height, width * self.height // self.width))
        if canvas != image.size:
            padded = Image.new("RGB", canvas, self.fill)
            padded.paste(image, ((canvas[0] - width) // 2, (canvas[1] - height) // 2))
            image = padded
        size = (self.width, self.height)
        return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
