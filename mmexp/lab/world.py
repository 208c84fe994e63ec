"""The drawn world: scenes of coloured shapes and a sign in the cells of a grid, and their pixels.

Everything is integer arithmetic on raw PCG64 words, so a scene and its pixels are the same on every machine.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np

from mmexp.errors import UserError, nearest
from mmexp.lab.font import GLYPH_COLUMNS, GLYPH_ROWS, WORDS, text_mask
from mmexp.lab.rng import Rng

COLORS = {
    "red": (214, 48, 44),
    "green": (56, 170, 70),
    "blue": (52, 88, 214),
    "yellow": (226, 206, 52),
    "purple": (166, 64, 196),
    "cyan": (64, 200, 208),
}
SHAPES = ("circle", "square", "triangle", "cross")
SIZES = ("small", "large")
SIGN_CELLS, SIGN_MARGIN, SIGN_CONTRAST = 2, 2, 48
"""Cells in a row, least distance of the text from the cells' border in pixels, and distance from the plate's grey."""
HELD_OUT_SHARE = 8
"""One scene in so many is kept for validation and test; experts and language models never see those."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldSpec:
    """What can be drawn: the node ``lab.world``.

    Args:
        image_size: side of the square image in pixels.
        grid: cells per side; an object lies in one cell and is off its centre by a random amount.
        min_objects, max_objects: objects in a scene; colours do not repeat, so at most ``len(COLORS)``.
        noise: largest change of a pixel's channel, 0..127.
        color_jitter: largest change of an object's channel, the same for all its pixels, 0..127.
        sign_percent: share of the scenes with a sign, 0..100; a sign takes two neighbouring cells of a row.
        glyph_size: side of a glyph's dot in pixels, even, so that light and dark pixels of a dot balance.
    """

    image_size: int
    grid: int
    min_objects: int
    max_objects: int
    noise: int
    color_jitter: int
    sign_percent: int
    glyph_size: int

    @classmethod
    def from_config(cls, node: Mapping[str, int]) -> "WorldSpec":
        """Checked spec. Raises ``UserError`` for an unknown key or a world that cannot be drawn."""
        known = [field.name for field in fields(cls)]
        for key in node:
            if key not in known:
                raise UserError(f"lab.world.{key}: no such key; {nearest(key, known)}")
        missing = [key for key in known if key not in node]
        if missing:
            raise UserError(f"lab.world: no value for {', '.join(missing)}")
        spec = cls(**{key: int(node[key]) for key in known})
        spec._check()
        return spec

    def with_objects(self, least: int, most: int) -> "WorldSpec":
        """The same world with other numbers of objects. Raises ``UserError`` when they do not fit."""
        spec = replace(self, min_objects=least, max_objects=most)
        spec._check()
        return spec

    @property
    def cell(self) -> int:
        """Side of a cell in pixels."""
        return self.image_size // self.grid

    def cell_names(self) -> list[str]:
        """Row-major: row a, b, ... from the top, column 1, 2, ... from the left."""
        return [f"{chr(ord('a') + row)}{column + 1}" for row in range(self.grid) for column in range(self.grid)]

    def _check(self) -> None:
        if not 1 <= self.grid <= 9 or self.image_size % self.grid or self.cell < 16:
            raise UserError(
                f"lab.world.grid: {self.grid} cells per side of {self.image_size} pixels; "
                "must be 1 to 9 cells that divide the side and have at least 16 pixels"
            )
        for key, most in (("noise", 127), ("color_jitter", 127), ("sign_percent", 100)):
            if not 0 <= getattr(self, key) <= most:
                raise UserError(f"lab.world.{key}: {getattr(self, key)} must be from 0 to {most}")
        if self.sign_percent:
            self._check_sign()
        free = self.grid**2 - (SIGN_CELLS if self.sign_percent else 0)
        most = min(free, len(COLORS))
        if self.max_objects > most:
            signs = f" besides the {SIGN_CELLS} of a sign" if self.sign_percent else ""
            raise UserError(
                f"lab.world.max_objects: {self.max_objects} objects do not fit; there are {free} cells{signs} and "
                f"{len(COLORS)} colours that do not repeat, so at most {most}"
            )
        if not 1 <= self.min_objects <= self.max_objects:
            raise UserError(
                f"lab.world.min_objects: {self.min_objects} must be from 1 to max_objects ({self.max_objects})"
            )

    def _check_sign(self) -> None:
        if self.grid < SIGN_CELLS:
            raise UserError(
                f"lab.world.sign_percent: {self.sign_percent}, but a sign needs {SIGN_CELLS} cells in a row and "
                f"lab.world.grid is {self.grid}; 0, or a larger grid"
            )
        width = max(len(word) for word in WORDS) * (GLYPH_COLUMNS + 1) - 1
        room = self.cell - 2 * SIGN_MARGIN, SIGN_CELLS * self.cell - 2 * SIGN_MARGIN
        largest = min(room[0] // GLYPH_ROWS, room[1] // width) // 2 * 2
        if self.glyph_size % 2 or not 2 <= self.glyph_size <= largest:
            raise UserError(
                f"lab.world.glyph_size: {self.glyph_size} must be an even number from 2 to {largest} for cells of "
                f"{self.cell} pixels"
            )


@dataclass(frozen=True, slots=True)
class Object:
    """One thing in a scene; ``row`` and ``column`` count from the top left."""

    color: str
    shape: str
    size: str
    row: int
    column: int


@dataclass(frozen=True, slots=True)
class Sign:
    """A plate on the cells (row, column) and (row, column + 1), with "10" to "99" or one of ``font.WORDS`` on it."""

    text: str
    row: int
    column: int


@dataclass(frozen=True, slots=True)
class Scene:
    """Objects in row-major order of their cells, and the sign if there is one: the ground truth of an image."""

    objects: tuple[Object, ...]
    sign: Sign | None = None

    def content(self) -> str:
        """What makes two scenes the same; jitter and noise do not count."""
        parts = [f"{o.color} {o.shape} {o.size} {o.row} {o.column}" for o in self.objects]
        return ";".join(parts + ([f"sign {self.sign.text} {self.sign.row} {self.sign.column}"] if self.sign else []))

    @property
    def held_out(self) -> bool:
        """True for scenes of validation and test only: a property of the scene itself, not of a list."""
        return hashlib.sha256(self.content().encode()).digest()[0] % HELD_OUT_SHARE == 0


def draw_scene(spec: WorldSpec, rng: Rng) -> Scene:
    """A random scene.

    The shapes come from a random palette of 1 to all shapes, so that counts above one are as common as others.
    """
    sign = draw_sign(spec, rng) if rng.below(100) < spec.sign_percent else None
    number = rng.between(spec.min_objects, spec.max_objects)
    taken = [sign.row * spec.grid + sign.column + place for place in range(SIGN_CELLS)] if sign else []
    free = [cell for cell in range(spec.grid**2) if cell not in taken]
    cells = sorted(free[place] for place in rng.sample(len(free), number))
    colors = rng.sample(len(COLORS), number)
    palette = rng.sample(len(SHAPES), rng.between(1, len(SHAPES)))
    names = list(COLORS)
    objects = tuple(
        Object(names[color], SHAPES[rng.pick(palette)], rng.pick(SIZES), cell // spec.grid, cell % spec.grid)
        for cell, color in zip(cells, colors, strict=True)
    )
    return Scene(objects, sign)


def draw_sign(spec: WorldSpec, rng: Rng) -> Sign:
    """A random sign, a number as often as a word."""
    text = rng.pick(WORDS) if rng.below(2) else str(rng.between(10, 99))
    return Sign(text, rng.below(spec.grid), rng.below(spec.grid - SIGN_CELLS + 1))


def scenes(spec: WorldSpec, rng: Rng, *, held_out: bool) -> Iterator[Scene]:
    """Endless scenes of one side of the split; may repeat."""
    while True:
        scene = draw_scene(spec, rng)
        if scene.held_out == held_out:
            yield scene


def place_objects(spec: WorldSpec, scene: Scene, rng: Rng) -> np.ndarray:
    """Where each object's pixels are: (objects, side, side) bool, with the random offset inside the cell."""
    masks = np.zeros((len(scene.objects), spec.image_size, spec.image_size), dtype=bool)
    for mask, item in zip(masks, scene.objects, strict=True):
        stamp = shape_mask(item.shape, object_side(spec, item.size))
        room = spec.cell - len(stamp)
        top = item.row * spec.cell + rng.below(room + 1)
        left = item.column * spec.cell + rng.below(room + 1)
        mask[top : top + len(stamp), left : left + len(stamp)] = stamp
    return masks


def place_sign(spec: WorldSpec, sign: Sign) -> np.ndarray:
    """Where the plate is: (side, side) bool, the sign's cells without a border of one pixel."""
    mask = np.zeros((spec.image_size, spec.image_size), dtype=bool)
    top, left = sign.row * spec.cell, sign.column * spec.cell
    mask[top + 1 : top + spec.cell - 1, left + 1 : left + SIGN_CELLS * spec.cell - 1] = True
    return mask


def draw_print(spec: WorldSpec, sign: Sign, rng: Rng) -> np.ndarray:
    """The sign's text as what is added to the plate: (side, side) int16, -1, 0 or 1; its place on the plate is random.

    Fine print: a dot is a checkerboard of light and dark pixels, with the plate's grey as its mean. A dot lies on even
    pixels; so nothing of it is left in an image at half the side.
    """
    stroke = np.kron(text_mask(sign.text), np.ones((spec.glyph_size, spec.glyph_size), dtype=np.int16))
    rows, columns = stroke.shape
    top = sign.row * spec.cell + _even_offset(spec.cell - rows, rng)
    left = sign.column * spec.cell + _even_offset(SIGN_CELLS * spec.cell - columns, rng)
    y, x = np.mgrid[0:rows, 0:columns]
    added = np.zeros((spec.image_size, spec.image_size), dtype=np.int16)
    added[top : top + rows, left : left + columns] = stroke * (1 - 2 * ((y + x) % 2))
    return added


def _even_offset(room: int, rng: Rng) -> int:
    """An even number of pixels with at least ``SIGN_MARGIN`` on both sides."""
    return SIGN_MARGIN + 2 * rng.below((room - 2 * SIGN_MARGIN) // 2 + 1)


def draw_image(spec: WorldSpec, scene: Scene, rng: Rng) -> np.ndarray:
    """Pixels of a scene: (side, side, 3) uint8, grey background, objects, sign, and uniform noise over all."""
    return draw(spec, scene, rng)[0]


def draw(spec: WorldSpec, scene: Scene, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """The same pixels, and the objects' masks as ``place_objects`` gives them."""
    image = np.full((spec.image_size, spec.image_size, 3), rng.between(70, 130), dtype=np.int16)
    if scene.sign:
        plate, added = rng.between(150, 190), draw_print(spec, scene.sign, rng)
        image[place_sign(spec, scene.sign)] = plate
        image += SIGN_CONTRAST * added[..., None]
    masks = place_objects(spec, scene, rng)
    for item, mask in zip(scene.objects, masks, strict=True):
        jitter = [rng.between(-spec.color_jitter, spec.color_jitter) for _ in range(3)]
        image[mask] = np.array(COLORS[item.color], dtype=np.int16) + np.array(jitter, dtype=np.int16)
    noise = rng.bytes(image.size).reshape(image.shape).astype(np.int16) % (2 * spec.noise + 1) - spec.noise
    return np.clip(image + noise, 0, 255).astype(np.uint8), masks


def object_side(spec: WorldSpec, size: str) -> int:
    """Side of an object in pixels: 11 of a 16-pixel cell if small, 15 if large."""
    return spec.cell * (15 if size == "large" else 11) // 16


@lru_cache
def shape_mask(shape: str, side: int) -> np.ndarray:
    """(side, side) bool, by integer comparisons on doubled coordinates around the centre."""
    y, x = np.mgrid[0:side, 0:side] * 2 - (side - 1)
    if shape == "circle":
        return x**2 + y**2 <= side**2
    if shape == "square":
        inset = side // 8
        return np.maximum(abs(x), abs(y)) <= side - 1 - 2 * inset
    if shape == "triangle":
        return 2 * abs(x) <= y + side + 1
    return np.minimum(abs(x), abs(y)) * 3 <= side
