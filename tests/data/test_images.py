"""Images of several views, and what may not be mixed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmexp.data.bad_samples import BadSample
from mmexp.data.images import ImageReader
from mmexp.errors import UserError


class Halves:
    """A resolution with the left and the right half as views."""

    def num_views(self, size):
        return 2

    def views(self, image):
        pixels = np.asarray(image).transpose(2, 0, 1)
        half = pixels.shape[2] // 2
        return np.stack([pixels[:, :, :half], pixels[:, :, half:]])

    def num_tokens(self, size, tokens_per_view, grid):
        return 2 * tokens_per_view

    def assembler(self, out_dim):
        raise NotImplementedError  # views are counted here, never assembled


class Whole(Halves):
    def views(self, image):
        return np.asarray(image).transpose(2, 0, 1)[None]


class Stored:
    def __init__(self, colours):
        self.colours = colours

    def lookup(self, name, view):
        colour = int(view[0, 0, 0])
        return {1: np.full((2, 3), colour)} if colour in self.colours else None


@pytest.fixture
def path(tmp_path) -> Path:
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[:, 3:] = 9
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize(("colours", "found"), [({0, 9}, True), ({0}, False), ({9}, False)])
def test_features_of_all_views_or_none(path, colours, found):
    reader = ImageReader(resolutions={"clip": Halves()}, features=Stored(colours))
    image = reader.read(path, "f:1")
    assert (image.num_views, image.size, image.views["clip"].shape) == (2, (6, 4), (2, 3, 4, 3))
    reader.find_features(image)
    assert ("clip" in image.features) == found
    if found:
        assert image.features["clip"][1][:, 0, 0].tolist() == [0, 9]


def test_encoders_must_agree_on_the_number_of_views(path):
    reader = ImageReader(resolutions={"clip": Halves(), "sam": Whole()}, features=None)
    with pytest.raises(UserError, match=r"resolution: encoders must make equally many views.*'clip': 2.*'sam': 1"):
        reader.read(path, "f:1")


def test_size_needs_only_the_header(path):
    reader = ImageReader(resolutions={"clip": Whole()}, features=None)
    path.write_bytes(path.read_bytes()[:45])
    assert reader.size(path, "f:1") == (6, 4)
    with pytest.raises(BadSample, match=r"^f:1: image '.*a\.png' cannot be read"):
        reader.read(path, "f:1")


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"x" * 50])
def test_unreadable_files(path, content):
    path.write_bytes(content)
    with pytest.raises(BadSample, match=r"^f:1: image '.*a\.png' cannot be read"):
        ImageReader(resolutions={"clip": Whole()}, features=None).read(path, "f:1")


def test_palette_and_grey_images_become_rgb(tmp_path):
    Image.new("LA", (3, 2), (7, 255)).save(tmp_path / "grey.png")
    image = ImageReader(resolutions={"clip": Whole()}, features=None).read(tmp_path / "grey.png", "f:1")
    assert image.views["clip"].tolist() == np.full((1, 3, 2, 3), 7).tolist()
