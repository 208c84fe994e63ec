"""Fusions that cannot be: one line that names the experts or the key."""

import pytest

from mmexp.errors import UserError
from tests.model.fusion.nodes import TWO, build

ODD = {"clip": (16, (4, 4)), "pix2struct": (24, (9, 9))}
GRIDLESS = {"clip": (16, (4, 4)), "sti": (24, None)}
CASES = [
    (
        "channel_concat",
        ODD,
        {"route": "pixel_shuffle"},
        r"'pix2struct' \(9 x 9, width 24\) to the grid of 'clip' \(4 x 4",
    ),
    ("channel_concat", ODD, {"route": "pixel_shuffle", "grid": [5, 5]}, r"'clip'.*fusion\.grid \(5 x 5\)"),
    (
        "sequence_append",
        GRIDLESS,
        {},
        r"'sti' \(20 tokens without rows and columns\) and 'clip' \(4 x 4\) cannot share",
    ),
    ("channel_concat", dict(reversed(GRIDLESS.items())), {}, r"'clip' \(4 x 4\) and 'sti' \(20 tokens .* cannot share"),
    ("channel_concat", GRIDLESS, {"grid": [4, 4]}, r"'sti' \(20 tokens .* and fusion\.grid \(4 x 4\) cannot share"),
    ("channel_concat", TWO, {"grid": [4]}, r"fusion\.grid: \[4\] is not \[rows, columns\]"),
    ("channel_concat", TWO, {"grid": [0, 4]}, r"fusion\.grid: \[0, 4\] is not"),
    ("channel_concat", TWO, {"route": "bilinera"}, "fusion.route: unknown 'bilinera'; did you mean 'bilinear'"),
    (
        "llava_hr",
        {"clip": (16, (4, 4))},
        {},
        "fusion=llava_hr adds experts to the first one and needs two or more, encoder has one: clip",
    ),
    ("mini_gemini", {"clip": (16, (4, 4))}, {}, "fusion=mini_gemini adds experts"),
    ("deformable", {"clip": (16, (4, 4))}, {}, "fusion=deformable adds experts"),
    ("llava_hr", ODD, {}, r"'pix2struct' \(9 x 9\) cannot be averaged .* grid of 'clip' \(4 x 4\)"),
    ("llava_hr", TWO, {"num_adapters": 8}, r"fusion\.num_adapters: 8; .* 8 blocks of 'low', so at most 7 fit"),
    ("llava_hr", TWO, {"num_adapters": -1}, r"fusion\.num_adapters: -1 must be at least 0"),
    ("mini_gemini", ODD, {}, r"'pix2struct' \(9 x 9\) cannot be cut .* 'clip' \(4 x 4\); set fusion\.window"),
    ("mini_gemini", GRIDLESS, {}, "'sti' has 20 tokens without rows and columns"),
    ("deformable", GRIDLESS, {}, "'sti' has 20 tokens without rows and columns"),
    ("deformable", TWO, {"num_heads": 3}, r"fusion\.num_heads: 3 heads do not divide the first expert's width 16"),
    ("deformable", TWO, {"num_points": 0}, r"fusion\.num_points: 0 must be at least 1"),
]


@pytest.mark.parametrize(("name", "experts", "changes", "message"), CASES)
def test_one_line(name: str, experts: dict, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(name, experts, **changes)
    assert "\n" not in str(caught.value)


def test_maps_without_a_grid_can_share_their_number_of_tokens() -> None:
    both = {"a": (16, None), "b": (24, None)}
    assert build("channel_concat", both).streams[0].dim == 40
