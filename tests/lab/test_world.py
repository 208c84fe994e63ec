"""Scenes and pixels: same seed same bytes, drawn as described, and refused where they cannot be."""

import hashlib

import numpy as np
import pytest

from mmexp.errors import UserError
from mmexp.lab.dice import Dice
from mmexp.lab.world import COLORS, Scene, draw_image, draw_scene, place_objects, scenes, shape_mask
from tests.lab.making import spec


def drawn(number: int, seed: int = 0) -> list[Scene]:
    dice = Dice(seed)
    return [draw_scene(spec(), dice) for _ in range(number)]


def test_same_seed_same_pixels() -> None:
    images = [draw_image(spec(), scene, Dice(1, place)) for place, scene in enumerate(drawn(20))]
    again = [draw_image(spec(), scene, Dice(1, place)) for place, scene in enumerate(drawn(20))]
    assert all(np.array_equal(one, other) for one, other in zip(images, again, strict=True))
    assert not np.array_equal(images[0], draw_image(spec(), drawn(1)[0], Dice(2, 0)))


def test_pixels_are_the_same_on_every_machine() -> None:
    """Recorded once: the hash may change only together with ``WorldStage.VERSION``."""
    pixels = [draw_image(spec(), scene, Dice(1, place)) for place, scene in enumerate(drawn(50))]
    digest = hashlib.sha256(np.stack(pixels).tobytes()).hexdigest()
    assert digest[:16] == "30fef9e64632f4b2"


def test_scenes_keep_their_limits() -> None:
    found = drawn(300)
    assert {len(scene.objects) for scene in found} == {2, 3, 4}
    for scene in found:
        assert len({item.color for item in scene.objects}) == len(scene.objects)
        assert len({(item.row, item.column) for item in scene.objects}) == len(scene.objects)


def test_objects_have_their_color_shape_and_cell() -> None:
    quiet = spec(noise=0, color_jitter=0)
    for number, scene in enumerate(drawn(30)):
        pixels = draw_image(quiet, scene, Dice(3, number))
        for item in scene.objects:
            mask = (pixels == np.array(COLORS[item.color], dtype=np.uint8)).all(axis=2)
            rows, columns = np.nonzero(mask)
            assert set(rows // 16) == {item.row} and set(columns // 16) == {item.column}
            box = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            drawn_shape = shape_mask(item.shape, 15 if item.size == "large" else 11)
            used = np.nonzero(drawn_shape.any(axis=1))[0], np.nonzero(drawn_shape.any(axis=0))[0]
            assert np.array_equal(
                box, drawn_shape[used[0].min() : used[0].max() + 1, used[1].min() : used[1].max() + 1]
            )


def test_placed_objects_do_not_overlap() -> None:
    for number, scene in enumerate(drawn(50)):
        assert place_objects(spec(), scene, Dice(4, number)).sum(axis=0).max() == 1


def test_held_out_scenes_are_a_property_of_the_scene() -> None:
    kept = scenes(spec(), Dice(5), held_out=True)
    others = scenes(spec(), Dice(5), held_out=False)
    assert all(next(kept).held_out for _ in range(20))
    assert not any(next(others).held_out for _ in range(20))
    share = sum(scene.held_out for scene in drawn(2000)) / 2000
    assert 0.08 < share < 0.17


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_objects": 7}, "max_objects: 7 objects do not fit"),
        ({"grid": 2, "image_size": 32, "max_objects": 5}, "at most 4"),
        ({"grid": 5}, "grid: 5 cells per side of 64"),
        ({"min_objects": 0}, "min_objects: 0"),
        ({"noise": 200}, "noise: 200"),
    ],
)
def test_a_world_that_cannot_be_drawn_is_refused(changes: dict[str, int], said: str) -> None:
    with pytest.raises(UserError, match=r"^[^\n]*$") as caught:
        spec(**changes)
    assert said in str(caught.value)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'max_objects'"):
        spec(max_object=3)
