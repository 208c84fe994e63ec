"""POPE's questions about drawn scenes (Li et al. 2023, arXiv 2305.10355): is an object there?

An object is a colour and a shape. Of objects that are not there, those are asked about that are drawn at random, that
are most frequent in the statistics (popular), or that stand most often beside the scene's own objects (adversarial).
The objects that are there are the same in all three samplings, as in the paper.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import permutations

from mmexp.interfaces import Turn
from mmexp.lab.rng import Rng
from mmexp.lab.world import COLORS, SHAPES, Scene

Named = tuple[str, str]
SAMPLINGS = ("random", "popular", "adversarial")
OBJECTS: tuple[Named, ...] = tuple((color, shape) for color in COLORS for shape in SHAPES)


class Statistics:
    """How often objects are seen, and seen together, in some scenes."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.single: Counter[Named] = Counter()
        self.pair: Counter[tuple[Named, Named]] = Counter()
        for scene in scenes:
            named = names(scene)
            self.single.update(named)
            self.pair.update(permutations(named, 2))

    def absent(self, scene: Scene, sampling: str, rng: Rng) -> list[Named]:
        """Objects that the scene has not, the first to be asked about first."""
        present = names(scene)
        left = [item for item in OBJECTS if item not in present]
        if sampling == "random":
            return [left[place] for place in rng.sample(len(left), len(left))]
        if sampling == "popular":
            return sorted(left, key=lambda item: -self.single[item])
        return sorted(left, key=lambda item: -sum(self.pair[other, item] for other in present))


def names(scene: Scene) -> list[Named]:
    return [(item.color, item.shape) for item in scene.objects]


def pope_turns(scene: Scene, statistics: Statistics, each: int, rng: Rng) -> list[Turn]:
    """For each sampling ``each`` questions with yes and as many with no (fewer in a scene of fewer objects)."""
    present = names(scene)
    asked = [present[place] for place in rng.sample(len(present), min(each, len(present)))]
    turns = []
    for sampling in SAMPLINGS:
        absent = statistics.absent(scene, sampling, rng)[: len(asked)]
        for answer, items in (("yes", asked), ("no", absent)):
            turns += [
                Turn(
                    question=f"is there a {color} {shape}?",
                    answer=answer,
                    response_format="word",
                    family=sampling,
                )
                for color, shape in items
            ]
    return turns
