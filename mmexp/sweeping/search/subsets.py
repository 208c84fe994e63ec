"""The sets that a greedy search can come to: their order, names and overrides."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmexp.config.overrides import key_of, parse
from mmexp.config.schema import read_node
from mmexp.errors import UserError, nearest
from mmexp.sweeping.search.selection import Members
from mmexp.sweeping.spec.schema import KnownSet

SEARCH = "sweep.search"
ENUMERATED = 12
"""With more candidates there are too many subsets to name them all."""


class Subsets:
    """A base and any of the candidates.

    Args:
        key: list-valued key that the members are the value of.
        base, candidates: names.
        overrides, overrides_by_size: see ``RoundRobin``.

    Raises:
        UserError: a name that is there twice, overrides that cannot be.
    """

    def __init__(
        self,
        key: str,
        base: Sequence[str],
        candidates: Sequence[str],
        overrides: Sequence[str],
        overrides_by_size: Mapping[int, Sequence[str]],
    ) -> None:
        self.key, self.base, self.candidates = key, tuple(base), tuple(candidates)
        self._check_members()
        self.overrides = self._checked_overrides(overrides, "overrides")
        self.overrides_by_size = self._checked_sizes(overrides_by_size)

    def first(self) -> list[Members]:
        """The base, and the sets of the first round."""
        return [*([self.base] if self.base else []), *(self.joined(self.base, name) for name in self.candidates)]

    def joined(self, members: Sequence[str], candidate: str) -> Members:
        """A set with one more candidate, in canonical order."""
        return tuple(name for name in (*self.base, *self.candidates) if name in (*members, candidate))

    def name(self, members: Members) -> str:
        """Name of a set's row: an identifier where its members are, so that findings can name it."""
        return re.sub(r"\W+", "_", "_".join(members))

    def overrides_of(self, members: Members) -> list[str]:
        """What makes a config one of this set."""
        own = [*self.overrides, *self.overrides_by_size.get(len(members), ())]
        return [f"{self.key}=[{','.join(members)}]", *{key_of(text): text for text in own}.values()]

    def all(self) -> Iterator[Members]:
        """All sets, small ones first."""
        for size in range(len(self.candidates) + 1):
            for chosen in itertools.combinations(self.candidates, size):
                if members := (*self.base, *chosen):
                    yield members

    def names(self) -> dict[str, Members]:
        """Row -> set, of all sets; empty where they are too many to be enumerated.

        Raises:
            UserError: two sets that would share a row: members ``a_b, c`` and ``a, b_c``.
        """
        names: dict[str, Members] = {}
        for members in self.all() if len(self.candidates) <= ENUMERATED else ():
            other = names.setdefault(self.name(members), members)
            if other != members:
                raise UserError(
                    f"{SEARCH}.candidates: {list(other)} and {list(members)} would both be the row "
                    f"'{self.name(members)}'; rename one of them"
                )
        return names

    def published(self, number: int, node: dict[str, Any]) -> tuple[Members, dict[str, Any]]:
        """A set in canonical order, and what its row has of it."""
        where = f"{SEARCH}.sets[{number}]"
        given = read_node(KnownSet, node, where)
        everything = (*self.base, *self.candidates)
        for name in given.set:
            if name not in everything:
                raise UserError(f"{where}: '{name}' is not a candidate; {nearest(name, everything)}")
        if missing := [name for name in self.base if name not in given.set]:
            raise UserError(f"{where}: every set of this search has {missing[0]}")
        members = tuple(name for name in everything if name in given.set)
        return members, {key: value for key, value in node.items() if key != "set"}

    def _check_members(self) -> None:
        if not self.candidates:
            raise UserError(f"{SEARCH}.candidates: there are none; list what may be added")
        for place, names in (("base", self.base), ("candidates", self.candidates)):
            for name in names:
                if names.count(name) > 1:
                    raise UserError(f"{SEARCH}.{place}: '{name}' is there twice")
        for name in self.candidates:
            if name in self.base:
                raise UserError(f"{SEARCH}.candidates: '{name}' is in {SEARCH}.base; name it once")

    def _checked_overrides(self, texts: Sequence[str], place: str) -> list[str]:
        for override in parse(texts, f"{SEARCH}.{place}"):
            where = f"{SEARCH}.{place}: '{override.input_line}'"
            if override.is_sweep_override():
                raise UserError(f"{where} has several values; a search varies {self.key} only")
            if override.key_or_group in (self.key, "seed"):
                raise UserError(f"{where}: {override.key_or_group} is set by the search")
        return list(texts)

    def _checked_sizes(self, by_size: Mapping[int, Sequence[str]]) -> dict[int, list[str]]:
        sizes = range(len(self.base) or 1, len(self.base) + len(self.candidates) + 1)
        if any(size not in sizes for size in by_size):
            raise UserError(f"{SEARCH}.overrides_by_size: write {{SIZE: [key=value]}}, sizes {sizes[0]} to {sizes[-1]}")
        return {size: self._checked_overrides(texts, f"overrides_by_size.{size}") for size, texts in by_size.items()}
