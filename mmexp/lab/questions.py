"""Questions about a scene: five families whose key word comes last, and the caption.

Of all that could be asked of a scene, what is asked is chosen so that each answer of a question text stays as frequent
as the others; then nobody who sees only the text can do better than chance.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from mmexp.errors import UserError, nearest
from mmexp.lab.dice import Dice
from mmexp.lab.world import COLORS, SHAPES, SIZES, Object, Scene, WorldSpec

Candidate = tuple[str, str]
"""(question, answer)."""


def existence(spec: WorldSpec, scene: Scene) -> list[Candidate]:
    """As in "is there a green triangle?": negatives have the wrong shape, or a colour that is not there."""
    present = {(item.color, item.shape) for item in scene.objects}
    return [
        (f"is there a {color} {shape}?", _yes_no((color, shape) in present)) for color in COLORS for shape in SHAPES
    ]


def count(spec: WorldSpec, scene: Scene) -> list[Candidate]:
    """As in "how many objects are squares?": 0 to 3; the rare 4 is not asked."""
    numbers = {plural(shape): sum(item.shape == shape for item in scene.objects) for shape in SHAPES}
    return [(f"how many objects are {word}?", str(number)) for word, number in numbers.items() if number <= 3]


def attribute(spec: WorldSpec, scene: Scene) -> list[Candidate]:
    """As in "which shape is red?" and "which size is red?": a scene has at most one object of a colour."""
    shapes = [(f"which shape is {item.color}?", item.shape) for item in scene.objects]
    return shapes + [(f"which size is {item.color}?", item.size) for item in scene.objects]


def absolute_position(spec: WorldSpec, scene: Scene) -> list[Candidate]:
    """As in "which cell is red?": rows a, b, ... from the top, columns 1, 2, ... from the left."""
    return [(f"which cell is {item.color}?", cell_of(spec, item)) for item in scene.objects]


def relative_position(spec: WorldSpec, scene: Scene) -> list[Candidate]:
    """As in "is blue left of red?": never asked of objects in the same column (or row)."""
    found = []
    for one in scene.objects:
        for other in scene.objects:
            if one.column != other.column:
                found.append((f"is {one.color} left of {other.color}?", _yes_no(one.column < other.column)))
                found.append((f"is {one.color} right of {other.color}?", _yes_no(one.column > other.column)))
            if one.row != other.row:
                found.append((f"is {one.color} above {other.color}?", _yes_no(one.row < other.row)))
                found.append((f"is {one.color} below {other.color}?", _yes_no(one.row > other.row)))
    return found


FAMILIES: dict[str, Callable[[WorldSpec, Scene], list[Candidate]]] = {
    "existence": existence,
    "count": count,
    "attribute": attribute,
    "absolute_position": absolute_position,
    "relative_position": relative_position,
}


def two_cells(spec: WorldSpec, scene: Scene) -> list[Candidate]:
    """As in "which cells are blue and red?": only to practise two look-ups for one answer, never a benchmark."""
    return [
        (f"which cells are {one.color} and {other.color}?", f"{cell_of(spec, one)} and {cell_of(spec, other)}")
        for one in scene.objects
        for other in scene.objects
        if one is not other
    ]


PRACTICE = {"two_cells": two_cells}
"""What only language models are pre-trained on."""


def caption(spec: WorldSpec, scene: Scene, dice: Dice) -> str:
    """Every object, in random order, as in "a small red square at b3, a large blue circle at c1".

    In row-major order a caption could be told without looking anything up.
    """
    items = [scene.objects[place] for place in dice.sample(len(scene.objects), len(scene.objects))]
    return ", ".join(f"a {item.size} {item.color} {item.shape} at {cell_of(spec, item)}" for item in items)


def cell_of(spec: WorldSpec, item: Object) -> str:
    return spec.cell_names()[item.row * spec.grid + item.column]


def plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")


def _yes_no(truth: bool) -> str:
    return "yes" if truth else "no"


class Questioner:
    """Asks ``number[family]`` different questions of each scene and keeps the answers of every text even.

    Args:
        spec: the world.
        number: family (also of ``PRACTICE``) -> questions per scene.
        dice: breaks ties and shuffles the order.

    Raises:
        UserError: an unknown family, or a negative number.
    """

    def __init__(self, spec: WorldSpec, number: dict[str, int], dice: Dice) -> None:
        for family, questions in number.items():
            if family not in {**FAMILIES, **PRACTICE}:
                raise UserError(f"lab questions: no family '{family}'; {nearest(family, FAMILIES)}")
            if questions < 0:
                raise UserError(f"lab questions: {family}: {questions}; at least 0")
        self.spec, self.number, self.dice = spec, number, dice
        self.asked: Counter[tuple[str, str, str]] = Counter()

    def ask(self, scene: Scene) -> list[tuple[str, str, str]]:
        """[(family, question, answer)] in random order; fewer where a scene has not enough to ask."""
        chosen = []
        for family, number in self.number.items():
            chosen += [(family, *candidate) for candidate in self._choose(family, scene, number)]
        return [chosen[place] for place in self.dice.sample(len(chosen), len(chosen))]

    def check(self, where: str) -> None:
        """Raises ``UserError`` for a family that was wanted and has no question at all."""
        have = {family for family, _, _ in self.asked}
        for family, number in self.number.items():
            if number and family not in have:
                raise UserError(
                    f"{where}: no scene of this world has a question of family '{family}'; "
                    "more objects (lab.world.max_objects) or 0 questions of it"
                )

    def _choose(self, family: str, scene: Scene, number: int) -> list[Candidate]:
        left = {**FAMILIES, **PRACTICE}[family](self.spec, scene)
        chosen = []
        for _ in range(min(number, len(left))):
            place = self._most_wanted(family, left)
            chosen.append(left.pop(place))
            self.asked[(family, *chosen[-1])] += 1
        return chosen

    def _most_wanted(self, family: str, candidates: list[Candidate]) -> int:
        """Index of the candidate whose (text, answer) was asked least so far."""
        counts = [self.asked[(family, *candidate)] for candidate in candidates]
        least = min(counts)
        return self.dice.pick([place for place, asked in enumerate(counts) if asked == least])


CLIP_WORDS = ("way", "moves", "up", "down", "first")
"""What questions about clips add (``mmexp.lab.video_stage``); nothing is trained on them."""


def words(spec: WorldSpec) -> list[str]:
    """All words that questions, answers and captions can hold, sorted."""
    texts: set[str] = {"yes", "no", "a", "at", ",", "?", *COLORS, *SHAPES, *SIZES, *spec.cell_names()}
    texts |= {plural(shape) for shape in SHAPES} | {str(number) for number in range(10)}
    texts |= set("is there how many objects are which shape size cell cells and left right of above below".split())
    return sorted(texts | set(CLIP_WORDS))


def question_only_accuracy(train: Iterable[tuple[str, str]], test: Iterable[tuple[str, str]]) -> float:
    """Accuracy, 0..1, of answering each question of ``test`` with its text's commonest answer in ``train``."""
    table: dict[str, Counter[str]] = {}
    for question, answer in train:
        table.setdefault(question, Counter())[answer] += 1
    hits = [table[question].most_common(1)[0][0] == answer if question in table else False for question, answer in test]
    return sum(hits) / len(hits)
