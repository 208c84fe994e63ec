"""The resolutions with one view, pixel for pixel against transformers' CLIP image processor (PIL backend)."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from mmexp.errors import UserError
from mmexp.model.resolution.pad import Pad
from mmexp.model.resolution.resize import Resize
from mmexp.model.resolution.square import Square

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
SIZES = [(64, 64), (100, 37), (37, 100), (33, 50), (7, 300), (640, 480), (56, 56), (57, 56)]
CONF = Path(__file__).parents[3] / "conf" / "resolution"


def noise(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(sum(size)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def clip_processor(side: int):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, do_rescale=False, do_normalize=False
    )


def processed(processor, image: Image.Image) -> np.ndarray:
    return np.asarray(processor(image, return_tensors="np")["pixel_values"])


@pytest.mark.parametrize("size", SIZES)
def test_square_is_the_clip_processor(size):
    image = noise(size)
    np.testing.assert_array_equal(
        Square(image_size=56, mean=CLIP_MEAN).views(image), processed(clip_processor(56), image)
    )


@pytest.mark.parametrize("size", SIZES)
def test_pad_is_a_mean_coloured_square_through_the_clip_processor(size):
    image = noise(size)
    side = max(size)
    square = Image.new("RGB", (side, side), tuple(int(value * 255) for value in CLIP_MEAN))
    square.paste(image, ((side - size[0]) // 2, (side - size[1]) // 2))
    np.testing.assert_array_equal(
        Pad(image_size=56, mean=CLIP_MEAN).views(image), processed(clip_processor(56), square)
    )


def test_resize_ignores_the_aspect_ratio():
    image = noise((100, 37))
    expected = np.asarray(image.resize((56, 56), Image.Resampling.BICUBIC)).transpose(2, 0, 1)[None]
    np.testing.assert_array_equal(Resize(image_size=56, mean=CLIP_MEAN).views(image), expected)


@pytest.mark.parametrize("resolution_class", [Resize, Square, Pad])
@pytest.mark.parametrize("size", [*SIZES, (1, 1), (1, 500)])
def test_views_have_the_encoders_size(resolution_class, size):
    views = resolution_class(image_size=[24, 40], mean=CLIP_MEAN).views(noise(size))
    assert views.shape == (1, 3, 24, 40)
    assert views.dtype == np.uint8
    assert views.flags.c_contiguous


def test_square_keeps_the_centre_and_pad_keeps_everything():
    pixels = np.zeros((10, 30, 3), dtype=np.uint8)
    pixels[:, :10] = 255
    image = Image.fromarray(pixels)
    assert Square(image_size=10, mean=CLIP_MEAN).views(image).max() == 0
    padded = Pad(image_size=30, mean=(0, 0.5, 1)).views(image)[0]
    np.testing.assert_array_equal(padded[:, 10:20, :10], np.full((3, 10, 10), 255))
    np.testing.assert_array_equal(padded[:, 0, 0], [0, 127, 255])


def test_other_modes_become_rgb():
    views = Resize(image_size=8, mean=CLIP_MEAN).views(noise((8, 8), "L"))
    np.testing.assert_array_equal(views[0, 0], views[0, 2])


@pytest.mark.parametrize("image_size", [0, [24], [24, 0], [1, 2, 3], "336"])
def test_a_wrong_image_size_names_the_key(image_size):
    with pytest.raises(UserError, match=r"encoder\.image_size"):
        Resize(image_size=image_size, mean=CLIP_MEAN)


@pytest.mark.parametrize("path", [CONF / f"{name}.yaml" for name in ("pad", "resize", "square")], ids=lambda p: p.stem)
def test_every_config_names_its_class(path):
    from importlib import import_module

    module, name = yaml.safe_load(path.read_text())["_target_"].rsplit(".", 1)
    part = getattr(import_module(module), name)(image_size=16, mean=CLIP_MEAN)
    assert part.num_views((5, 9)) == 1
    assert part.num_tokens((5, 9), 64, (8, 8)) == 64


def test_assembler_gives_each_image_its_tokens():
    import torch

    tokens = torch.arange(24.0).reshape(3, 4, 2)
    assembler = Resize(image_size=16, mean=CLIP_MEAN).assembler(out_dim=2)
    parts = assembler(tokens, (2, 2), [1, 1, 1], [(5, 9)] * 3)
    assert torch.equal(torch.stack(parts), tokens)
    both = assembler(tokens, (2, 2), [2, 1], [(5, 9)] * 2)
    assert torch.equal(both[0], tokens[:2].reshape(8, 2))


def test_no_torch_for_views():
    code = (
        "import sys; from PIL import Image; from mmexp.model.resolution.pad import Pad;"
        "Pad(image_size=8, mean=(0.5, 0.5, 0.5)).views(Image.new('RGB', (9, 4))); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
