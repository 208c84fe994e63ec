"""Tiles chosen by the image's shape, and a view of the whole: LLaVA-1.5-HD (arXiv 2310.03744, section 3.4 and A.1).

Each tile has the encoder's own input size and goes through encoder, feature layers, fusion, projector and reduction by
itself; then the tiles of an image are joined into one map (``assembly.py``). The paper's training code
is not released; what it leaves open follows the official ``anyres`` code as transformers' LLaVA-NeXT has it: how the
grid is chosen, how the image is brought to its size, which tokens are padding, where the row-end token goes. From the
same weights and pixels the model gives LLaVA-NeXT's logits (tests/parity/test_llava_next.py).

Deliberate differences to it: borders have the encoder's mean colour, not black (as ``resolution=pad`` of LLaVA-1.5);
the whole image is padded before it is resized, as the paper says (``global_view: resize`` is the official code); an
image that is nearly all padding keeps a row of tokens, where the official code keeps none; an image so narrow that no
grid keeps a pixel of its shorter side is a bad sample, where the official code takes the smallest grid.

Encoder experiments (Eagle's native, interpolated, tiled, each frozen or trained) choose this like any resolution:
``encoder=[clip] resolution=tile resolution.grids=[[2,2]] resolution.global_view=none`` is a fixed 2 x 2 tiling; the
interpolated input is an encoder file of another ``image_size`` (``clip_448``, ``clip_224_interpolated``); the recipe
says what is trained. Experts of different input sizes share tiles with one ``resolution.tile_size``.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmexp.errors import UserError, nearest
from mmexp.interfaces import Grid, ImageSize
from mmexp.model.resolution.pad import Pad
from mmexp.model.resolution.resize import Resize
from mmexp.model.resolution.tile_grid import allowed_grids, best_grid, fitted_size, padding

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

OPTIONS = {"fit": ("pad", "resize"), "global_view": ("pad", "resize", "none"), "assemble": ("map", "tiles")}


class Tile:
    """The view of the whole first, if any, then the tiles row by row.

    Args:
        grids: what may be chosen among, [rows, columns] in tiles; null: every grid of at most ``max_tiles``.
        pinpoints: the same in pixels, [height, width], as LLaVA-NeXT's ``image_grid_pinpoints``.
        max_tiles: grids of more tiles are left out; null leaves out none.
        tile_size: pixels that a tile counts for when the grid is chosen: a side, or [height, width]; null is the
            encoder's input size. Encoders of different input sizes need the same one to be tiled alike.
        fit: how the image fills its grid: ``pad`` keeps its aspect ratio, ``resize`` does not.
        global_view: the whole image as one more view: ``pad``, ``resize`` or ``none``.
        global_first: the tokens of the whole image come before those of the tiles.
        assemble: ``map``: the tiles' maps are joined and read row by row over all tiles; ``tiles``: tile after tile.
        unpad: leave out tokens of nothing but padding.
        newline: a learned token at the end of each row of the joined map.
        image_size, mean: facts of the encoder.

    Raises:
        UserError: no grid, a pinpoint that is not a multiple of the tile, options that exclude each other.
    """

    def __init__(
        self,
        *,
        grids: Sequence[Sequence[int]] | None,
        pinpoints: Sequence[Sequence[int]] | None,
        max_tiles: int | None,
        tile_size: int | Sequence[int] | None,
        fit: str,
        global_view: str,
        global_first: bool,
        assemble: str,
        unpad: bool,
        newline: bool,
        image_size: int | Sequence[int],
        mean: Sequence[float],
    ) -> None:
        for key, value in (("fit", fit), ("global_view", global_view), ("assemble", assemble)):
            if value not in OPTIONS[key]:
                raise UserError(f"resolution.{key}: unknown '{value}'; {nearest(str(value), OPTIONS[key])}")
        if unpad and fit == "resize":
            raise UserError("resolution.unpad: fit=resize leaves no padding to remove; set resolution.unpad=false")
        if assemble == "tiles" and (unpad or newline):
            key = "unpad" if unpad else "newline"
            raise UserError(f"resolution.{key}: assemble=tiles joins no rows; set resolution.{key}=false")
        # Also what a frame of a video is seen through (mmexp/evaluation/viewing.py).
        self.whole = (Resize if global_view == "resize" else Pad)(image_size=image_size, mean=mean)
        self.tile_size = self._tile_size(tile_size)
        self.grids = allowed_grids(grids, pinpoints, max_tiles, self.tile_size)
        self.fit, self.global_view, self.global_first = fit, global_view, global_first
        self.assemble, self.unpad, self.newline = assemble, unpad, newline

    def _tile_size(self, tile_size: int | Sequence[int] | None) -> tuple[int, int]:
        """(height, width)."""
        own = (self.whole.height, self.whole.width)
        if tile_size is None:
            return own
        sides = [tile_size, tile_size] if isinstance(tile_size, int) else list(tile_size)
        if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
            raise UserError(f"resolution.tile_size: {tile_size} must be a number of pixels, or [height, width]")
        if sides[0] * own[1] != sides[1] * own[0]:
            raise UserError(f"resolution.tile_size: {tile_size} has another shape than the encoder's input {list(own)}")
        return sides[0], sides[1]

    @property
    def scheme(self) -> dict[str, object]:
        options = ("tile_size", "grids", "fit", "global_view", "global_first", "assemble", "unpad", "newline")
        return {"views": "tiles", **{option: getattr(self, option) for option in options}}

    @property
    def sizes(self) -> list[ImageSize]:
        height, width = self.tile_size
        return [(columns * width, rows * height) for rows, columns in self.grids]

    @property
    def has_whole(self) -> bool:
        return self.global_view != "none"

    def grid_of(self, size: ImageSize) -> Grid:
        """Rows and columns of tiles.

        Raises:
            UserError: an image so narrow that no pixel of its shorter side is left in any grid.
        """
        grid = best_grid(size, self.grids, self.tile_size)
        if grid is None:
            raise UserError(
                f"an image of {size[0]} x {size[1]} px is too narrow: no grid of resolution=tile keeps a pixel of its "
                "shorter side"
            )
        return grid

    def num_views(self, size: ImageSize) -> int:
        rows, columns = self.grid_of(size)
        return rows * columns + self.has_whole

    def views(self, image: "Image.Image") -> "np.ndarray":
        """(views, 3, height, width) uint8 of the encoder's input size."""
        import numpy as np

        image = image if image.mode == "RGB" else image.convert("RGB")
        rows, columns = self.grid_of(image.size)
        height, width = self.whole.height, self.whole.width
        canvas = np.asarray(self._fitted(image, (columns * width, rows * height)))
        tiles = canvas.reshape(rows, height, columns, width, 3).transpose(0, 2, 4, 1, 3)
        tiles = tiles.reshape(rows * columns, 3, height, width)
        return np.concatenate([self.whole.views(image), tiles]) if self.has_whole else np.ascontiguousarray(tiles)

    def _fitted(self, image: "Image.Image", target: ImageSize) -> "Image.Image":
        from PIL import Image

        size = fitted_size(image.size, target) if self.fit == "pad" else target
        resized = image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
        if size == target:
            return resized
        canvas = Image.new("RGB", target, self.whole.fill)
        canvas.paste(resized, ((target[0] - size[0]) // 2, (target[1] - size[1]) // 2))
        return canvas

    def borders(self, size: ImageSize, grid: Grid) -> Grid:
        """Rows of padding above (and below) and columns left (and right) in the joined map of tiles of ``grid``."""
        if not self.unpad:
            return (0, 0)
        rows, columns = self.grid_of(size)
        target = (columns * self.tile_size[1], rows * self.tile_size[0])
        return padding(size, target, (rows * grid[0], columns * grid[1]))

    def num_tokens(self, size: ImageSize, tokens_per_view: int, grid: Grid | None) -> int:
        """Raises ``UserError`` where tokens without rows and columns would have to be joined into a map."""
        rows, columns = self.grid_of(size)
        whole = tokens_per_view * self.has_whole
        if self.assemble == "tiles":
            return rows * columns * tokens_per_view + whole
        if grid is None:
            raise UserError(
                "resolution: tiles cannot be joined into one map, since projector, feature_layers or fusion make "
                "tokens without rows and columns; choose resolution=tile_flat"
            )
        above, left = self.borders(size, grid)
        return (rows * grid[0] - 2 * above) * (columns * grid[1] - 2 * left + self.newline) + whole

    def assembler(self, out_dim: int) -> "torch.nn.Module":
        from mmexp.model.resolution.assembly import AssembleTiles

        return AssembleTiles(self, out_dim)
