"""Multiple choice: lines with letters, and another order of the choices."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mmexp.interfaces import Turn

if TYPE_CHECKING:
    import numpy as np

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def choice_lines(choices: Sequence[str]) -> list[str]:
    """``A. first``, ``B. second``, ..."""
    return [f"{letter}. {text}" for letter, text in zip(LETTERS, choices, strict=False)]


def shuffled(turn: Turn, rng: "np.random.Generator") -> Turn:
    """The turn with its choices in a random order, and the letter that its answer has there.

    The stored sample stays as it is: shuffling it in place makes the stored letter wrong from the second visit on
    (papers/honeybee.md, section 8, 1).
    """
    if not turn.choices:
        return turn
    order = rng.permutation(len(turn.choices)).tolist()
    place = order.index(LETTERS.index(turn.answer))
    return replace(turn, choices=tuple(turn.choices[number] for number in order), answer=LETTERS[place])
