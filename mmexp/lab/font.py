"""The sign's font: digits and the letters of its words, 3 dots wide and 5 high."""

import numpy as np

GLYPH_ROWS, GLYPH_COLUMNS = 5, 3
WORDS = ("bus", "car", "cat", "cup", "dog", "hat", "key", "map", "owl", "pen", "sun", "tea")
GLYPHS = {
    "0": "### #.# #.# #.# ###",
    "1": ".#. ##. .#. .#. ###",
    "2": "### ..# ### #.. ###",
    "3": "### ..# .## ..# ###",
    "4": "#.# #.# ### ..# ..#",
    "5": "### #.. ### ..# ###",
    "6": "### #.. ### #.# ###",
    "7": "### ..# .#. .#. .#.",
    "8": "### #.# ### #.# ###",
    "9": "### #.# ### ..# ###",
    "a": ".#. #.# ### #.# #.#",
    "b": "##. #.# ##. #.# ##.",
    "c": ".## #.. #.. #.. .##",
    "d": "##. #.# #.# #.# ##.",
    "e": "### #.. ##. #.. ###",
    "g": ".## #.. #.# #.# .##",
    "h": "#.# #.# ### #.# #.#",
    "k": "#.# #.# ##. #.# #.#",
    "l": "#.. #.. #.. #.. ###",
    "m": "#.# ### ### #.# #.#",
    "n": "##. #.# #.# #.# #.#",
    "o": ".#. #.# #.# #.# .#.",
    "p": "##. #.# ##. #.. #..",
    "r": "##. #.# ##. ##. #.#",
    "s": ".## #.. .#. ..# ##.",
    "t": "### .#. .#. .#. .#.",
    "u": "#.# #.# #.# #.# ###",
    "w": "#.# #.# ### ### #.#",
    "y": "#.# #.# .#. .#. .#.",
}


def text_mask(text: str) -> np.ndarray:
    """(GLYPH_ROWS, dots) int16 of 0 and 1, with one empty column between two glyphs."""
    mask = np.zeros((GLYPH_ROWS, len(text) * (GLYPH_COLUMNS + 1) - 1), dtype=np.int16)
    for place, letter in enumerate(text):
        left = place * (GLYPH_COLUMNS + 1)
        for row, dots in enumerate(GLYPHS[letter].split()):
            mask[row, left : left + GLYPH_COLUMNS] = [dot == "#" for dot in dots]
    return mask
