"""Scenes and pixels: same seed same bytes, drawn as described, and refused where they cannot be."""

import hashlib

import numpy as np
import pytest

from mmexp.errors import UserError
from mmexp.lab.font import WORDS, text_mask
from mmexp.lab.rng import Rng
from mmexp.lab.world import (
    COLORS,
    Scene,
    Sign,
    draw_image,
    draw_print,
    draw_scene,
    place_objects,
    place_sign,
    scenes,
    shape_mask,
)
from tests.lab.making import spec


def drawn(number: int, seed: int = 0) -> list[Scene]:
    rng = Rng(seed)
    return [draw_scene(spec(), rng) for _ in range(number)]


def test_same_seed_same_pixels() -> None:
    images = [draw_image(spec(), scene, Rng(1, place)) for place, scene in enumerate(drawn(20))]
    again = [draw_image(spec(), scene, Rng(1, place)) for place, scene in enumerate(drawn(20))]
    assert all(np.array_equal(one, other) for one, other in zip(images, again, strict=True))
    assert not np.array_equal(images[0], draw_image(spec(), drawn(1)[0], Rng(2, 0)))


def test_pixels_are_the_same_on_every_machine() -> None:
    """Recorded once: the hash may change only together with ``WorldStage.VERSION``."""
    pixels = [draw_image(spec(), scene, Rng(1, place)) for place, scene in enumerate(drawn(50))]
    digest = hashlib.sha256(np.stack(pixels).tobytes()).hexdigest()
    assert digest[:16] == "bc7c21f000b0c886"


def test_scenes_keep_their_limits() -> None:
    found = drawn(300)
    assert {len(scene.objects) for scene in found} == {2, 3, 4}
    for scene in found:
        assert len({item.color for item in scene.objects}) == len(scene.objects)
        assert len({(item.row, item.column) for item in scene.objects}) == len(scene.objects)
    signs = [scene.sign for scene in found if scene.sign]
    assert 180 < len(signs) < 270
    assert 60 < sum(sign.text.isdigit() for sign in signs) < 160
    assert {sign.text for sign in signs if not sign.text.isdigit()} == set(WORDS)
    assert {sign.column for sign in signs} == {0, 1, 2} and {sign.row for sign in signs} == {0, 1, 2, 3}


def test_objects_have_their_color_shape_and_cell() -> None:
    quiet = spec(noise=0, color_jitter=0)
    for number, scene in enumerate(drawn(30)):
        pixels = draw_image(quiet, scene, Rng(3, number))
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


def test_placed_objects_and_sign_do_not_overlap() -> None:
    for number, scene in enumerate(drawn(50)):
        plates = [place_sign(spec(), scene.sign)] if scene.sign else []
        assert np.stack([*place_objects(spec(), scene, Rng(4, number)), *plates]).sum(axis=0).max() == 1


def test_no_two_texts_look_the_same() -> None:
    texts = [*map(str, range(10, 100)), *WORDS]
    assert len({text_mask(text).tobytes() + bytes(text_mask(text).shape) for text in texts}) == len(texts)


@pytest.mark.parametrize("changes", [{}, {"image_size": 128, "glyph_size": 4}])
def test_the_print_is_fine(changes: dict[str, int]) -> None:
    """It lies on its plate, is there at full size, and its mean over each 2 x 2 pixels is nothing."""
    world = spec(**changes)
    for number, text in enumerate(("47", "owl", "10")):
        sign = Sign(text, number, number % 3)
        added = draw_print(world, sign, Rng(5, number))
        dots = int(text_mask(text).sum())
        assert abs(added).sum() == dots * world.glyph_size**2
        assert not added[~place_sign(world, sign)].any()
        half = world.image_size // 2
        assert not added.reshape(half, 2, half, 2).sum(axis=(1, 3)).any()


def test_a_scene_is_told_apart_by_its_sign() -> None:
    objects = drawn(1)[0].objects
    signs = (None, Sign("47", 0, 0), Sign("48", 0, 0), Sign("47", 1, 0), Sign("47", 0, 1))
    assert len({Scene(objects, sign).content() for sign in signs}) == len(signs)


def test_a_world_without_signs() -> None:
    rng = Rng(6)
    assert not any(draw_scene(spec(sign_percent=0), rng).sign for _ in range(100))


def test_held_out_scenes_are_a_property_of_the_scene() -> None:
    kept = scenes(spec(), Rng(5), held_out=True)
    others = scenes(spec(), Rng(5), held_out=False)
    assert all(next(kept).held_out for _ in range(20))
    assert not any(next(others).held_out for _ in range(20))
    share = sum(scene.held_out for scene in drawn(2000)) / 2000
    assert 0.08 < share < 0.17


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_objects": 7}, "max_objects: 7 objects do not fit"),
        ({"grid": 2, "image_size": 32, "max_objects": 5, "sign_percent": 0}, "at most 4"),
        ({"grid": 5}, "grid: 5 cells per side of 64"),
        ({"min_objects": 0}, "min_objects: 0"),
        ({"noise": 200}, "noise: 200"),
        ({"grid": 2, "image_size": 32, "max_objects": 3}, "2 cells besides the 2 of a sign"),
        ({"sign_percent": 101}, "sign_percent: 101 must be from 0 to 100"),
        ({"grid": 1, "image_size": 16, "max_objects": 1, "min_objects": 1}, "a sign needs 2 cells in a row"),
        ({"glyph_size": 3}, "glyph_size: 3 must be an even number from 2 to 2"),
        ({"glyph_size": 4}, "for cells of 16 pixels"),
    ],
)
def test_a_world_that_cannot_be_drawn_is_refused(changes: dict[str, int], said: str) -> None:
    with pytest.raises(UserError, match=r"^[^\n]*$") as caught:
        spec(**changes)
    assert said in str(caught.value)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'max_objects'"):
        spec(max_object=3)
