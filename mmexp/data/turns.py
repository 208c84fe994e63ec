"""How the exchanges of a sample become conversations."""

from collections.abc import Sequence
from typing import Protocol

from mmexp.interfaces import Turn


class Turns(Protocol):
    """Splits a sample's exchanges; each part becomes one conversation, all about the sample's image."""

    def split(self, turns: Sequence[Turn]) -> list[Sequence[Turn]]: ...


class SingleTurn:
    """Each exchange on its own."""

    def split(self, turns: Sequence[Turn]) -> list[Sequence[Turn]]:
        return [[turn] for turn in turns]


class MultiTurn:
    """All exchanges in one conversation, in their order."""

    def split(self, turns: Sequence[Turn]) -> list[Sequence[Turn]]:
        return [turns]
