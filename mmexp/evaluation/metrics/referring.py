"""Referring expressions (RefCOCO and others): is the box in the reply the box that was meant?

Checked against lmms-eval 75571cfe (`tasks/refcoco/utils_rec.py`, ACC@0.5) and VLMEvalKit e8e78f05
(`dataset/refcoco.py`, Precision@1).
"""

import re
from collections.abc import Sequence

import numpy as np

from mmexp.evaluation.metrics.base import HEADLINE, Answers, Metric, family_means, weighted_mean

MIN_IOU = 0.5
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

_DECIMAL = r"(-?\d+(?:\.\d+)?)"
_NUMBER = r"([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)"
_BETWEEN = r"(?:\s*,\s*|\s+)"
COMMAS_ONLY = re.compile(r"\[\s*" + r",\s*".join([_DECIMAL] * 4) + r"\s*\]")
SQUARE = re.compile(r"\[\s*" + _BETWEEN.join([_NUMBER] * 4) + r"\s*\]")
ROUND = re.compile(r"\(\s*" + _BETWEEN.join([_NUMBER] * 4) + r"\s*\)")
CORNERS = re.compile(rf"\(\s*{_NUMBER}{_BETWEEN}{_NUMBER}\s*\)\s*,?\s*\(\s*{_NUMBER}{_BETWEEN}{_NUMBER}\s*\)")


def box_of(text: str) -> Box | None:
    """The first box of a text: ``[x1, y1, x2, y2]`` or ``[x1 y1 x2 y2]``, round brackets, ``(x1, y1), (x2, y2)``."""
    found = [match for pattern in (SQUARE, ROUND, CORNERS) if (match := pattern.search(text))]
    return _numbers(min(found, key=lambda match: match.start())) if found else None


def iou(first: Box, second: Box) -> float:
    """Intersection over union; 0 for boxes without area."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return width * height / (sum(areas) - width * height)


class Referring(Metric):
    """Values: percent of boxes with an intersection over union of at least 0.5 (main number), and each family's
    (the splits). The answer is a box in text; a reply without a box is wrong.

    - ``lmms_eval``: ``[x1, y1, x2, y2]`` with commas only, in the answer's units.
    - ``vlmevalkit``: commas or spaces, else the first four numbers of the reply; numbers up to 1.5 are parts of the
      image, up to 1000 thousandths; corners are sorted, and cut to the image. The answer is in parts of the image.
      Deliberate difference: larger numbers are pixels there, and wrong here, where the size of an image is not known.
    - ``same_units``: square or round brackets, commas or spaces, or two corners, in the answer's units (the lab's
      eighths, ``[2 4 4 6]``).
    """

    variants = ("lmms_eval", "vlmevalkit", "same_units")

    def problem(self, references: Sequence[str], family: str, choices: Sequence[str] = ()) -> str | None:
        for reference in references:
            box = box_of(reference)
            if box is None or box[0] >= box[2] or box[1] >= box[3]:
                return f"the answer must be a box [left, top, right, bottom], not '{reference}'"
            if self.variant == "vlmevalkit" and not all(0 <= side <= 1 for side in box):
                return f"the answer must be a box in parts of the image, 0 to 1, not '{reference}'"
        return None

    def score(self, prediction: str, references: Sequence[str], family: str = "", choices: Sequence[str] = ()) -> float:
        said = self.read(prediction)
        boxes = [box for reference in references if (box := box_of(reference))]
        return float(said is not None and any(iou(said, box) >= MIN_IOU for box in boxes))

    def read(self, reply: str) -> Box | None:
        """The box that the variant sees in a reply."""
        if self.variant == "same_units":
            return box_of(reply)
        if self.variant == "lmms_eval":
            found = COMMAS_ONLY.search(reply)
            return _numbers(found) if found else None
        return _in_image(_four_numbers(reply))

    def values(self, answers: Answers, weights: np.ndarray) -> dict[str, np.ndarray]:
        return {HEADLINE: 100 * weighted_mean(answers.scores, weights)} | family_means(answers, weights)


def _numbers(match: re.Match[str]) -> Box:
    first, second, third, fourth = (float(number) for number in match.groups())
    return first, second, third, fourth


def _four_numbers(reply: str) -> Box | None:
    found = SQUARE.search(reply)
    if found:
        return _numbers(found)
    numbers = [float(number) for number in re.findall(_NUMBER, reply)[:4]]
    return (numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) == 4 else None


def _in_image(box: Box | None) -> Box | None:
    """VLMEvalKit's ``_to_absolute`` for an image of size 1 x 1."""
    if box is None:
        return None
    largest = max(abs(side) for side in box)
    if largest > 1000:
        return None
    left, top, right, bottom = (min(max(side / (1 if largest <= 1.5 else 1000), 0.0), 1.0) for side in box)
    return min(left, right), min(top, bottom), max(left, right), max(top, bottom)
