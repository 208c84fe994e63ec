"""Clips of the drawn world: shapes that appear one after the other and cross the image, and questions about them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mmexp.lab.questions import plural
from mmexp.lab.rng import Rng
from mmexp.lab.world import COLORS, SHAPES, SIZES, WorldSpec, object_side, shape_mask

DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
"""Way -> (rows, columns) of a step; rows count from the top."""
STILL_FRAMES = 2
"""Frames at the end of a clip in which nothing new appears."""


@dataclass(frozen=True, slots=True)
class Mover:
    """A thing that appears in frame ``start`` and moves through its lane, a row or column of cells, until the end."""

    color: str
    shape: str
    size: str
    way: str
    lane: int
    start: int


@dataclass(frozen=True, slots=True)
class Clip:
    """Movers in the order in which they appear, and the number of frames: the ground truth of a video."""

    movers: tuple[Mover, ...]
    frames: int


def draw_clip(spec: WorldSpec, frames: int, rng: Rng) -> Clip:
    """A random clip. All move along rows, or all along columns, each in a lane of its own, so that none hides another.

    The first appears in frame 0, the others at equal distances; no other has its shape. Colours do not repeat.
    """
    number = rng.between(2, min(spec.max_objects, spec.grid))
    ways = ("left", "right") if rng.below(2) else ("up", "down")
    colors, lanes = rng.sample(len(COLORS), number), rng.sample(spec.grid, number)
    first, *others = rng.sample(len(SHAPES), rng.between(2, len(SHAPES)))
    shapes = [SHAPES[first], *(SHAPES[rng.pick(others)] for _ in range(number - 1))]
    names, apart = list(COLORS), (frames - STILL_FRAMES) // number
    return Clip(
        tuple(
            Mover(names[color], shape, rng.pick(SIZES), rng.pick(ways), lane, place * apart)
            for place, (color, shape, lane) in enumerate(zip(colors, shapes, lanes, strict=True))
        ),
        frames,
    )


def draw_frames(spec: WorldSpec, clip: Clip, rng: Rng) -> Iterator[np.ndarray]:
    """Pixels of each frame: (side, side, 3) uint8, drawn as images are; the noise is new in every frame."""
    background = rng.between(70, 130)
    paints = [
        np.array(COLORS[mover.color], dtype=np.int16)
        + np.array([rng.between(-spec.color_jitter, spec.color_jitter) for _ in range(3)], dtype=np.int16)
        for mover in clip.movers
    ]
    for number in range(clip.frames):
        image = np.full((spec.image_size, spec.image_size, 3), background, dtype=np.int16)
        for mover, paint in zip(clip.movers, paints, strict=True):
            if number >= mover.start:
                stamp = shape_mask(mover.shape, object_side(spec, mover.size))
                top, left = place_of(spec, clip, mover, number)
                image[top : top + len(stamp), left : left + len(stamp)][stamp] = paint
        noise = rng.bytes(image.size).reshape(image.shape).astype(np.int16) % (2 * spec.noise + 1) - spec.noise
        yield np.clip(image + noise, 0, 255).astype(np.uint8)


def place_of(spec: WorldSpec, clip: Clip, mover: Mover, number: int) -> tuple[int, int]:
    """Top left pixel in a frame: from one end of the lane to the other, evenly from ``start`` to the last frame."""
    side = object_side(spec, mover.size)
    room = spec.image_size - side
    along = room * (number - mover.start) // (clip.frames - 1 - mover.start)
    across = mover.lane * spec.cell + (spec.cell - side) // 2
    rows, columns = DIRECTIONS[mover.way]
    along = along if rows + columns > 0 else room - along
    return (along, across) if rows else (across, along)


def direction(clip: Clip) -> list[tuple[str, str]]:
    """As in "which way moves red?"."""
    return [(f"which way moves {mover.color}?", mover.way) for mover in clip.movers]


def order(clip: Clip) -> list[tuple[str, str]]:
    """ "which shape is first?"."""
    return [("which shape is first?", clip.movers[0].shape)]


def number(clip: Clip) -> list[tuple[str, str]]:
    """As in "how many objects are squares?", of the whole clip; 0 to 3, as in images."""
    counts = {shape: sum(mover.shape == shape for mover in clip.movers) for shape in SHAPES}
    return [(f"how many objects are {plural(shape)}?", str(count)) for shape, count in counts.items() if count <= 3]


FAMILIES = {"video_direction": direction, "video_order": order, "video_count": number}
"""Their own names: a run may have scores of images and of videos in one result."""
