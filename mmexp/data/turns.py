"""How the exchanges of a sample become conversations."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from mmexp.data.choices import LETTERS
from mmexp.errors import UserError, nearest
from mmexp.interfaces import Turn

if TYPE_CHECKING:
    import numpy as np

CONVERSATIONS = ("all", "one")


class Turns(Protocol):
    """Splits a sample's exchanges; each part becomes one conversation, all about the sample's image."""

    @property
    def varies(self) -> bool:
        """Whether ``split`` draws anything, so that a sample is split differently each time."""

    def split(
        self, turns: Sequence[Turn], dataset: str, rng: "np.random.Generator | None"
    ) -> Sequence[Sequence[Turn]]: ...


class SingleTurn:
    """Each exchange on its own."""

    varies = False

    def split(
        self, turns: Sequence[Turn], dataset: str = "", rng: "np.random.Generator | None" = None
    ) -> list[Sequence[Turn]]:
        return [[turn] for turn in turns]


class MultiTurn:
    """All exchanges in one conversation, in their order."""

    varies = False

    def split(
        self, turns: Sequence[Turn], dataset: str = "", rng: "np.random.Generator | None" = None
    ) -> list[Sequence[Turn]]:
        return [turns]


class GroupedTurns:
    """Honeybee's turns: the questions of an image, of some without repeated targets, in chunks (table 5d, figure 5).

    Deliberate differences to the official code, which makes each chunk a sample: a sample is an image here, so that
    images, not questions, are drawn evenly; ``conversations`` says how many of its chunks a visit gives.

    Args:
        grouped: datasets whose exchanges are questions independent of each other. Others are real conversations and
            stay as they are.
        max_turns: exchanges of a chunk; 1 is single-turn, None all.
        deduplicate: datasets where one exchange of those with the same answer is kept, another one at each visit.
        conversations: ``one`` chunk at each visit, or ``all``.
    """

    def __init__(
        self, *, grouped: Sequence[str], max_turns: int | None, deduplicate: Sequence[str], conversations: str
    ) -> None:
        if max_turns is not None and max_turns < 1:
            raise UserError(f"turns.max_turns: {max_turns} must be at least 1, or null for all")
        if conversations not in CONVERSATIONS:
            raise UserError(
                f"turns.conversations: unknown '{conversations}'; {nearest(str(conversations), CONVERSATIONS)}"
            )
        single = [name for name in deduplicate if name not in grouped]
        if single:
            raise UserError(f"turns.deduplicate: '{single[0]}' is not grouped; {nearest(single[0], grouped)}")
        self.grouped, self.max_turns, self.deduplicate = set(grouped), max_turns, set(deduplicate)
        self.conversations = conversations

    @property
    def varies(self) -> bool:
        return bool(self.deduplicate) or (self.conversations == "one" and bool(self.grouped))

    def split(self, turns: Sequence[Turn], dataset: str, rng: "np.random.Generator | None") -> Sequence[Sequence[Turn]]:
        if dataset not in self.grouped:
            return [turns]
        assert rng is not None
        kept = distinct_targets(turns, rng) if dataset in self.deduplicate else turns
        size = self.max_turns or len(kept)
        chunks = [kept[start : start + size] for start in range(0, len(kept), size)]
        return chunks if self.conversations == "all" else [chunks[int(rng.integers(len(chunks)))]]


def distinct_targets(turns: Sequence[Turn], rng: "np.random.Generator") -> list[Turn]:
    """Of the exchanges with the same target one, drawn at random, at the place of the first.

    The target of a choice is its text: letters of different questions have nothing in common.
    """
    groups: dict[str, list[Turn]] = {}
    for turn in turns:
        groups.setdefault(_target(turn), []).append(turn)
    return [group[int(rng.integers(len(group)))] if len(group) > 1 else group[0] for group in groups.values()]


def _target(turn: Turn) -> str:
    return turn.choices[LETTERS.index(turn.answer)] if turn.choices else turn.answer
