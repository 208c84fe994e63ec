"""Questions about a scene: ten families whose key word comes last, and the caption.

Of all that could be asked of a scene, what is asked is chosen so that the answers to a question text stay equally
frequent; without the image nothing does better than chance.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from mmexp.data.choices import LETTERS, choice_lines
from mmexp.errors import UserError, nearest
from mmexp.interfaces import Turn
from mmexp.lab import font
from mmexp.lab.rng import Rng
from mmexp.lab.world import COLORS, SHAPES, SIZES, Object, Scene, WorldSpec

NUM_CHOICES = 4
CHOICES = "{choices}"
"""Where a question has its choices, if not after it."""
PAIRS = "{pairs}"
"""The answer that names every choice and its letter."""
BOX_PARTS = 8
"""The coordinates of a box count so many parts of the image's side."""


class Candidate(NamedTuple):
    """Something that could be asked."""

    question: str
    answer: str
    pool: tuple[str, ...] = ()
    """Multiple choice: texts that the answer stands among; some of them are offered."""


def existence(spec: WorldSpec, scene: Scene) -> list[Candidate]:
    """As in "is there a green triangle?": negatives have the wrong shape, or a colour that is not there."""
    present = {(item.color, item.shape) for item in scene.objects}
    return [
        Candidate(f"is there a {color} {shape}?", _yes_no((color, shape) in present))
        for color in COLORS
        for shape in SHAPES
    ]


def count(spec: WorldSpec, scene: Scene) -> list[Candidate]:
    """As in "how many objects are squares?": 0 to 3; the rare 4 is not asked."""
    numbers = {plural(shape): sum(item.shape == shape for item in scene.objects) for shape in SHAPES}
    return [Candidate(f"how many objects are {word}?", str(number)) for word, number in numbers.items() if number <= 3]


def attribute(spec: WorldSpec, scene: Scene) -> list[Candidate]:
    """As in "which shape is red?" and "which size is red?": a scene has at most one object of a colour."""
    shapes = [Candidate(f"which shape is {item.color}?", item.shape) for item in scene.objects]
    return shapes + [Candidate(f"which size is {item.color}?", item.size) for item in scene.objects]


def absolute_position(spec: WorldSpec, scene: Scene) -> list[Candidate]:
    """As in "which cell is red?": rows a, b, ... from the top, columns 1, 2, ... from the left."""
    return [Candidate(f"which cell is {item.color}?", cell_of(spec, item)) for item in scene.objects]


def relative_position(spec: WorldSpec, scene: Scene) -> list[Candidate]:
    """As in "is blue left of red?": never asked of objects in the same column (or row)."""
    found = []
    for one in scene.objects:
        for other in scene.objects:
            if one.column != other.column:
                found.append(Candidate(f"is {one.color} left of {other.color}?", _yes_no(one.column < other.column)))
                found.append(Candidate(f"is {one.color} right of {other.color}?", _yes_no(one.column > other.column)))
            if one.row != other.row:
                found.append(Candidate(f"is {one.color} above {other.color}?", _yes_no(one.row < other.row)))
                found.append(Candidate(f"is {one.color} below {other.color}?", _yes_no(one.row > other.row)))
    return found


def reading(spec: WorldSpec, scene: Scene) -> list[Candidate]:
    """As in "what is on the sign?": a number or a word."""
    return [Candidate("what is on the sign?", scene.sign.text)] if scene.sign else []


def multiple_choice(spec: WorldSpec, scene: Scene) -> list[Candidate]:
    """As in "which shape is red?" or "which cell is red?", each with lettered choices."""
    shapes = [Candidate(f"which shape is {item.color}?", item.shape, SHAPES) for item in scene.objects]
    cells = tuple(spec.cell_names())
    return shapes + [Candidate(f"which cell is {item.color}?", cell_of(spec, item), cells) for item in scene.objects]


def referring_box(spec: WorldSpec, scene: Scene) -> list[Candidate]:
    """As in "which box is red?": where a named thing is."""
    return [Candidate(f"which box is {item.color}?", box_of(spec, item)) for item in scene.objects]


def referring_region(spec: WorldSpec, scene: Scene) -> list[Candidate]:
    """As in "which object is in [2 4 4 6]?": what is at a place."""
    return [
        Candidate(f"which object is in {box_of(spec, item)}?", f"{item.color} {item.shape}") for item in scene.objects
    ]


def instruction(spec: WorldSpec, scene: Scene) -> list[Candidate]:
    """As in "describe red.": a few words in the model's own order."""
    return [
        Candidate(f"describe {item.color}.", f"a {item.size} {item.shape} at {cell_of(spec, item)}")
        for item in scene.objects
    ]


FAMILIES: dict[str, Callable[[WorldSpec, Scene], list[Candidate]]] = {
    "existence": existence,
    "count": count,
    "attribute": attribute,
    "absolute_position": absolute_position,
    "relative_position": relative_position,
    "reading": reading,
    "multiple_choice": multiple_choice,
    "referring_box": referring_box,
    "referring_region": referring_region,
    "instruction": instruction,
}
RESPONSE_FORMATS: dict[str, str | None] = {
    "multiple_choice": "letter",
    "lettered": "letter",
    "listed": "letter",
    "matched": None,
    "referring_box": "box",
    "referring_region": "region",
    "instruction": None,
}
"""Of other families ``word``."""


def two_cells(spec: WorldSpec, scene: Scene) -> list[Candidate]:
    """As in "which cells are blue and red?": only to practise two look-ups for one answer, never a benchmark."""
    return [
        Candidate(f"which cells are {one.color} and {other.color}?", f"{cell_of(spec, one)} and {cell_of(spec, other)}")
        for one in scene.objects
        for other in scene.objects
        if one is not other
    ]


def lettered(spec: WorldSpec, scene: Scene) -> list[Candidate]:
    """As in "which letter is square?": only to practise finding a text among choices, never a benchmark."""
    cells = tuple(spec.cell_names())
    found = [Candidate(f"which letter is {item.shape}?", item.shape, SHAPES) for item in scene.objects]
    return found + [
        Candidate(f"which letter is {cell_of(spec, item)}?", cell_of(spec, item), cells) for item in scene.objects
    ]


def listed(spec: WorldSpec, scene: Scene) -> list[Candidate]:
    """As ``lettered``, with the choices before the question: the key word comes last, as in other families."""
    return [item._replace(question=f"{CHOICES}\n{item.question}") for item in lettered(spec, scene)]


def matched(spec: WorldSpec, scene: Scene) -> list[Candidate]:
    """Each text before its letter, in random order: the shortest way to "find the line with this text"."""
    return [item._replace(question="which letter is which?", answer=PAIRS) for item in lettered(spec, scene)]


PRACTICE = {"two_cells": two_cells, "lettered": lettered, "listed": listed, "matched": matched}
"""What only language models are pre-trained on."""


def caption(spec: WorldSpec, scene: Scene, rng: Rng) -> str:
    """Every object and the sign, in random order, as in "a small red square at b3, a sign with 47 at c1".

    In row-major order a caption could be told without looking anything up.
    """
    parts = [f"a {item.size} {item.color} {item.shape} at {cell_of(spec, item)}" for item in scene.objects]
    if scene.sign:
        cell = spec.cell_names()[scene.sign.row * spec.grid + scene.sign.column]
        parts.append(f"a sign with {scene.sign.text} at {cell}")
    return ", ".join(parts[place] for place in rng.sample(len(parts), len(parts)))


def cell_of(spec: WorldSpec, item: Object) -> str:
    return spec.cell_names()[item.row * spec.grid + item.column]


def box_of(spec: WorldSpec, item: Object) -> str:
    """``[left top right bottom]`` of the object's cell in eighths of the side, rounded outwards.

    Objects are off their cell's centre by less than an eighth in a grid of 4, so that it is their own box there.
    """
    sides = [item.column * BOX_PARTS // spec.grid, item.row * BOX_PARTS // spec.grid]
    sides += [-(-(place + 1) * BOX_PARTS // spec.grid) for place in (item.column, item.row)]
    return f"[{' '.join(map(str, sides))}]"


def plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")


def _yes_no(truth: bool) -> str:
    return "yes" if truth else "no"


class Questioner:
    """Asks ``number[family]`` different questions of each scene and keeps the answers of every text even.

    Args:
        spec: the world.
        number: family (also of ``PRACTICE``) -> questions per scene.
        rng: breaks ties, shuffles the order, and draws and shuffles choices.

    Raises:
        UserError: an unknown family, or a negative number.
    """

    def __init__(self, spec: WorldSpec, number: dict[str, int], rng: Rng) -> None:
        for family, questions in number.items():
            if family not in {**FAMILIES, **PRACTICE}:
                raise UserError(f"lab questions: unknown family '{family}'; {nearest(family, FAMILIES)}")
            if questions < 0:
                raise UserError(f"lab questions: {family}: {questions} must be at least 0")
        self.spec, self.number, self.rng = spec, number, rng
        self.asked: Counter[tuple[str, str, str]] = Counter()

    def ask(self, scene: Scene) -> list[Turn]:
        """Questions with answers in random order; fewer where a scene has not enough to ask."""
        chosen = [
            self._turn(family, candidate)
            for family, number in self.number.items()
            for candidate in self._choose(family, scene, number)
        ]
        return [chosen[place] for place in self.rng.sample(len(chosen), len(chosen))]

    def check(self, where: str) -> None:
        """Raises ``UserError`` for a family that was requested and has no question at all."""
        have = {family for family, _, _ in self.asked}
        for family, number in self.number.items():
            if number and family not in have:
                remedy = "lab.world.sign_percent" if family == "reading" else "lab.world.max_objects"
                raise UserError(
                    f"{where}: no scene of this world has a question of family '{family}'; "
                    f"a higher {remedy}, or 0 questions of it"
                )

    def _turn(self, family: str, candidate: Candidate) -> Turn:
        choices = self._choices(candidate)
        return Turn(
            question=candidate.question.replace(CHOICES, "\n".join(["", *choice_lines(choices)])),
            answer=self._answer(candidate.answer, choices),
            response_format=RESPONSE_FORMATS.get(family, "word"),
            family=family,
            choices=() if CHOICES in candidate.question else choices,
        )

    def _answer(self, answer: str, choices: tuple[str, ...]) -> str:
        if not choices:
            return answer
        if answer == PAIRS:
            order = self.rng.sample(len(choices), len(choices))
            return " ".join(f"{choices[place]} {LETTERS[place]}" for place in order)
        return LETTERS[choices.index(answer)]

    def _choices(self, candidate: Candidate) -> tuple[str, ...]:
        """The answer, where it is one of them, and others of its pool, in random order."""
        if not candidate.pool:
            return ()
        own = [candidate.answer] if candidate.answer in candidate.pool else []
        others = [text for text in candidate.pool if text not in own]
        number = min(NUM_CHOICES - len(own), len(others))
        texts = [*own, *(others[place] for place in self.rng.sample(len(others), number))]
        return tuple(texts[place] for place in self.rng.sample(len(texts), len(texts)))

    def _choose(self, family: str, scene: Scene, number: int) -> list[Candidate]:
        left = {**FAMILIES, **PRACTICE}[family](self.spec, scene)
        chosen = []
        for _ in range(min(number, len(left))):
            candidate = left.pop(self._most_wanted(family, left))
            chosen.append(candidate)
            self.asked[(family, candidate.question, candidate.answer)] += 1
        return chosen

    def _most_wanted(self, family: str, candidates: list[Candidate]) -> int:
        """Index of the candidate whose (text, answer) was asked least so far."""
        counts = [self.asked[(family, candidate.question, candidate.answer)] for candidate in candidates]
        least = min(counts)
        return self.rng.pick([place for place, asked in enumerate(counts) if asked == least])


CLIP_WORDS = ("way", "moves", "up", "down", "first")
"""What questions about clips add (``mmexp.lab.video_stage``); nothing is trained on them."""


def words(spec: WorldSpec) -> list[str]:
    """All words that questions, answers and captions can hold, sorted; ``##7`` is the second digit of a number."""
    texts: set[str] = {"yes", "no", "a", "at", ",", "?", ".", "[", "]", *COLORS, *SHAPES, *SIZES, *spec.cell_names()}
    texts |= {plural(shape) for shape in SHAPES} | {str(number) for number in range(10)}
    texts |= {f"##{number}" for number in range(10)} | set(font.WORDS) | set(LETTERS[:NUM_CHOICES])
    texts |= set("is there how many objects are which shape size cell cells and left right of above below".split())
    texts |= set("what on the sign with box object in describe letter".split())
    texts |= set("way moves up down first".split())  # of clips, which nothing is trained on
    return sorted(texts | set(CLIP_WORDS))


def question_only_accuracy(train: Iterable[tuple[str, str]], test: Iterable[tuple[str, str]]) -> float:
    """Accuracy, 0..1, of answering each question of ``test`` with its text's commonest answer in ``train``."""
    table: dict[str, Counter[str]] = {}
    for question, answer in train:
        table.setdefault(question, Counter())[answer] += 1
    hits = [table[question].most_common(1)[0][0] == answer if question in table else False for question, answer in test]
    return sum(hits) / len(hits)
