"""Tiles: grids and pixels against transformers' LLaVA-NeXT, tokens against a slow reference, what is refused."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from mmexp.errors import UserError
from mmexp.model.resolution.tile import Tile
from mmexp.model.resolution.tile_grid import best_grid, padding

CONF = Path(__file__).parents[3] / "conf" / "resolution"
SIZES = [
    (64, 64),
    (100, 37),
    (37, 100),
    (33, 50),
    (7, 60),
    (640, 480),
    (8, 8),
    (17, 16),
    (300, 10),
    (96, 64),
    (63, 129),
]
GRIDS = [(1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (3, 1)]


def tile(name: str = "tile", **changes: Any) -> Tile:
    """The shipped ``resolution=tile`` for an encoder of 16 px, with changes."""
    node = yaml.safe_load((CONF / "tile.yaml").read_text())
    if name != "tile":
        node |= {key: value for key, value in yaml.safe_load((CONF / f"{name}.yaml").read_text()).items()}
    names = ("_target_", "defaults")
    options = {key: value for key, value in node.items() if key not in names}
    return Tile(**{**options, "image_size": 16, "mean": (0.0, 0.0, 0.0), **changes})


def noise(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.random.default_rng(sum(size)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def pooled(pixels: np.ndarray, rows: int, columns: int) -> torch.Tensor:
    """(3, H, W) -> (rows * columns, 3): the mean colour of each cell."""
    cells = torch.tensor(pixels, dtype=torch.float64).unflatten(1, (rows, -1)).unflatten(3, (columns, -1))
    return cells.mean(dim=(2, 4)).flatten(1).T


def test_default_grids_are_the_papers():
    """LLaVA-1.5, appendix A.1: 1x1 ... 1x6, 2x2, 2x3 and transposes."""
    expected = {(1, n) for n in range(1, 7)} | {(n, 1) for n in range(1, 7)} | {(2, 2), (2, 3), (3, 2)}
    grids = tile().grids
    assert set(grids) == expected
    assert len(grids) == len(expected)


def test_grids_are_chosen_as_in_llava_next():
    from transformers.image_processing_utils import select_best_resolution

    drawn = np.random.default_rng(0).integers(1, 700, (300, 2)).tolist()
    for grids in (GRIDS, tile().grids, [(1, 6), (6, 1)]):
        pinpoints = [(rows * 16, columns * 16) for rows, columns in grids]
        for width, height in [*SIZES, *drawn]:
            theirs = select_best_resolution((height, width), pinpoints)
            ours = best_grid((width, height), grids, (16, 16))
            if ours is None:  # refused, where theirs is the smallest grid
                assert max(width, height) > 16 * max(map(max, grids)) * min(width, height)
            else:
                assert (ours[0] * 16, ours[1] * 16) == theirs, (width, height)


@pytest.mark.parametrize("size", SIZES)
def test_views_are_llava_nexts(size):
    """With black borders and a squeezed view of the whole, as its processor has them."""
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": 16},
        crop_size={"height": 16, "width": 16},
        image_grid_pinpoints=[[rows * 16, columns * 16] for rows, columns in GRIDS],
        do_rescale=False,
        do_normalize=False,
    )
    theirs = np.asarray(processor(noise(size), return_tensors="np")["pixel_values"])[0]
    ours = tile(grids=GRIDS, global_view="resize").views(noise(size))
    np.testing.assert_array_equal(ours, theirs)
    assert ours.dtype == np.uint8
    assert ours.flags.c_contiguous


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("unpad", [True, False])
@pytest.mark.parametrize("newline", [True, False])
@pytest.mark.parametrize("global_view", ["pad", "none"])
def test_tokens_against_a_slow_reference(size, unpad, newline, global_view):
    """Tokens are mean colours of 4 x 4 cells of a view; they come back in the order of the whole canvas."""
    part = tile(unpad=unpad, newline=newline, global_view=global_view, global_first=unpad)
    views = part.views(noise(size))
    tokens = torch.stack([pooled(view, 4, 4) for view in views])
    assembler = part.assembler(out_dim=3).double()
    (found,) = assembler(tokens, (4, 4), [len(views)], [size])

    rows, columns = part.grid_of(size)
    canvas = np.asarray(part._fitted(noise(size), (columns * 16, rows * 16))).transpose(2, 0, 1)
    whole = pooled(canvas, rows * 4, columns * 4)
    kept_rows, kept_columns = slow_kept(size, rows * 4, columns * 4) if unpad else (range(rows * 4), range(columns * 4))
    expected = []
    for row in kept_rows:
        expected += [whole[row * columns * 4 + column] for column in kept_columns]
        expected += [assembler.newline.detach()] if newline else []
    context = list(tokens[0]) if global_view == "pad" else []
    expected = context + expected if unpad else expected + context
    assert torch.equal(found, torch.stack(expected))
    assert part.num_views(size) == len(views) == rows * columns + (global_view == "pad")
    assert part.num_tokens(size, 16, (4, 4)) == len(expected)


def slow_kept(size, rows, columns):
    """Rows and columns that are not padding, in exact fractions, written as LLaVA-NeXT's unpad_image."""
    width, height = size
    if Fraction(width, height) > Fraction(columns, rows):
        drop = (rows - int(height * Fraction(columns, width))) // 2
        drop = min(drop, (rows - 1) // 2)
        return range(drop, rows - drop), range(columns)
    drop = (columns - int(width * Fraction(rows, height))) // 2
    drop = min(drop, (columns - 1) // 2)
    return range(rows), range(drop, columns - drop)


@pytest.mark.parametrize("size", [(300, 120), (120, 300), (330, 61), (90, 113), (500, 60), (77, 310)])
def test_only_padding_is_left_out(size):
    """A white image on black: every kept token has some white, every dropped one is at least half black."""
    part = tile(newline=False, global_view="none")
    views = part.views(Image.new("RGB", size, (255, 255, 255)))
    tokens = torch.stack([pooled(view, 4, 4) for view in views]) / 255
    (kept,) = part.assembler(out_dim=3)(tokens, (4, 4), [len(views)], [size])
    assert kept.min() > 0
    above, left = part.borders(size, (4, 4))
    assert above + left > 0
    assert (above == 0) == (size[0] < size[1] * part.grid_of(size)[1] / part.grid_of(size)[0])
    assert len(kept) < tokens.shape[0] * 16
    dropped = tokens.sum() - kept.sum()
    assert dropped <= 0.5 * 3 * (tokens.shape[0] * 16 - len(kept))


def test_exact_counts():
    """CLIP-L/14 at 224: 16 x 16 tokens a tile."""
    part = tile(image_size=224)
    count = {size: part.num_tokens(size, 256, (16, 16)) for size in [(448, 448), (672, 448), (224, 224), (640, 480)]}
    assert count[448, 448] == 256 + 32 * 33
    assert count[672, 448] == 256 + 32 * 49
    assert count[224, 224] == 256 + 16 * 17
    # 640 x 480 on 672 x 448: 597 px wide, 42 of 48 columns, three dropped on each side
    assert count[640, 480] == 256 + 32 * 43
    assert part.num_tokens((640, 480), 64, (8, 8)) == 64 + 16 * 23  # after a reduction: 21 columns; 24 - 2 * 1 stay
    assert tile(image_size=224, max_tiles=4).grid_of((672, 448)) == (2, 2)
    assert max(part.num_tokens(size, 256, (16, 16)) for size in part.sizes) == 256 + 16 * 6 * 17


def test_every_batch_of_images_is_assembled_alone():
    part = tile()
    sizes = [(64, 20), (20, 64), (16, 16)]
    counts = [part.num_views(size) for size in sizes]
    tokens = torch.randn(sum(counts), 16, 5)
    assembler = part.assembler(out_dim=5)
    together = assembler(tokens, (4, 4), counts, sizes)
    for alone, own, count, size in zip(together, tokens.split(counts), counts, sizes, strict=True):
        assert torch.equal(assembler(own, (4, 4), [count], [size])[0], alone)
        assert len(alone) == part.num_tokens(size, 16, (4, 4))


def test_the_newline_is_learned_and_the_same_at_each_start():
    torch.manual_seed(1)
    assembler = tile().assembler(out_dim=64)
    torch.manual_seed(2)
    assert torch.equal(tile().assembler(out_dim=64).newline, assembler.newline)
    assert 0.08 < assembler.newline.std() < 0.17  # 1 / sqrt(64)
    (out,) = assembler(torch.zeros(5, 16, 64), (4, 4), [5], [(32, 32)])
    out.sum().backward()
    assert torch.equal(assembler.newline.grad, torch.full((64,), 8.0))
    assert not list(tile(newline=False).assembler(out_dim=64).parameters())


def test_tiles_one_after_the_other_need_no_grid():
    part = tile("tile_flat")
    tokens = torch.randn(5, 7, 3)
    (out,) = part.assembler(out_dim=3)(tokens, None, [5], [(32, 32)])
    assert torch.equal(out, tokens.flatten(0, 1))
    assert part.num_tokens((32, 32), 7, None) == 35


def test_tile_size_lets_encoders_of_other_sizes_choose_alike():
    low, high = tile(tile_size=16), tile(tile_size=16, image_size=40)
    for size in SIZES:
        assert low.grid_of(size) == high.grid_of(size)
        assert low.num_tokens(size, 16, (4, 4)) == high.num_tokens(size, 16, (4, 4))
    assert high.views(noise((32, 32))).shape == (5, 3, 40, 40)
    assert low.scheme == high.scheme
    assert tile(image_size=40).scheme != low.scheme


def test_a_sliver_keeps_a_row_and_a_thread_is_refused():
    part = tile()
    assert part.grid_of((300, 4)) == (1, 6)
    assert padding((300, 4), (96, 16), (4, 24)) == (1, 0)  # rows 1 and 2 stay; the official code keeps none
    assert padding((300, 4), (96, 16), (3, 24)) == (1, 0)
    for size in [(1, 5000), (5000, 1)]:
        with pytest.raises(UserError, match=rf"{size[0]} x {size[1]} px is too narrow"):
            part.num_views(size)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pinpoints": [[16, 24]]}, r"pinpoints: \[16, 24\] is not a multiple of the tile, \[16, 16\]"),
        ({"pinpoints": []}, "pinpoints: is empty"),
        ({"grids": []}, "grids: is empty"),
        ({"grids": [[1, 2]], "pinpoints": [[16, 16]]}, "both given"),
        ({"max_tiles": None}, "no grid to choose; set resolution.max_tiles"),
        ({"max_tiles": 0}, "max_tiles: 0 must be at least 1"),
        ({"grids": [[2, 2]], "max_tiles": 3}, "max_tiles: 3; all the given grids have more tiles"),
        ({"grids": [[2]]}, r"grids: \[2\] is not \[rows, columns\]"),
        ({"grids": [[0, 2]]}, r"grids: \[0, 2\] is not"),
        ({"tile_size": -1}, "tile_size: -1 must be a number of pixels"),
        ({"tile_size": [16, 32]}, "another shape than the encoder's input"),
        ({"fit": "padd"}, "fit: unknown 'padd'; did you mean 'pad'"),
        ({"global_view": True}, "global_view: unknown 'True'"),
        ({"assemble": "flat"}, "assemble: unknown 'flat'"),
        ({"fit": "resize"}, "unpad: fit=resize leaves no padding"),
        ({"assemble": "tiles"}, "unpad: assemble=tiles joins no rows"),
        ({"assemble": "tiles", "unpad": False}, "newline: assemble=tiles joins no rows"),
    ],
)
def test_what_cannot_be_is_one_line(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        tile(**changes)
    assert "resolution" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_map_of_tokens_without_rows_is_refused():
    with pytest.raises(UserError, match="choose resolution=tile_flat"):
        tile().num_tokens((32, 32), 7, None)


def test_pinpoints_are_grids_in_pixels_and_squeezed_images_fill_them():
    part = tile(pinpoints=[[32, 48], [16, 16]], fit="resize", unpad=False)
    assert part.grids == [(2, 3), (1, 1)]
    views = tile(grids=[[1, 2]], fit="resize", unpad=False, global_view="none").views(noise((50, 50)))
    expected = np.asarray(noise((50, 50)).resize((32, 16), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_array_equal(np.concatenate(list(views), axis=2), expected)
