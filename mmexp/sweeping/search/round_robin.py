"""Greedy forward selection over a list, rounds as parallel batches.

Eagle's search over experts (arXiv 2408.15998, section 3.5; papers' notes in the sweep's file): every candidate is added
to the best set so far, all are trained and evaluated, the best is kept, until the stop rule ends it. Differences to the
paper: several seeds, a stop rule beside "until none is left", ties by cost, and sets in one canonical order, so that a
set is one trial whichever way led to it. ``sweep.search`` is described in docs/sweeps.md.
"""

import math
from collections.abc import Sequence
from typing import Any

from mmexp.config import options
from mmexp.config.composition import LISTS
from mmexp.errors import UserError, nearest
from mmexp.files import DONE, KILLED
from mmexp.instantiate import instantiate
from mmexp.sweeping.search.selection import Decision, Members, Score, best_of, decide
from mmexp.sweeping.search.stop_rule import MinImprovement, SeedNoise, StopRule
from mmexp.sweeping.search.strategy import Strategy
from mmexp.sweeping.search.subsets import SEARCH, Subsets
from mmexp.sweeping.spec.sweep import Sweep
from mmexp.sweeping.spec.table import BLIND, Request, blind_overrides
from mmexp.sweeping.spec.trials import Measured


class RoundRobin(Strategy):
    """A greedy search.

    Args:
        key: list-valued key that is searched over: a group of which several options are chosen (``encoder``), or a list
            of the config.
        candidates: what may be added to a set.
        base: what every set has; empty starts from nothing.
        overrides: of every set.
        overrides_by_size: number of members -> overrides of sets of that size; they replace those of the same key.
        stop: a ``StopRule``; ``SeedNoise`` where there are two seeds, else ``MinImprovement(0)``.
        exhaustive: afterwards run all other subsets, to see what the greedy path lost.
        sets: published numbers of sets, in any order of their members.

    Raises:
        UserError: what is wrong in these, or in names that they have from elsewhere.
    """

    uses = ()

    def __init__(
        self,
        *,
        sweep: Sweep,
        key: str,
        candidates: list[str],
        base: list[str] | None = None,
        overrides: list[str] | None = None,
        overrides_by_size: dict[int, list[str]] | None = None,
        stop: dict[str, Any] | None = None,
        exhaustive: bool = False,
        sets: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(sweep=sweep)
        if sweep.node.metric is None:
            raise UserError("sweep.metric: say what is searched for, a metric or an aggregate")
        self.metric, self.key, self.exhaustive = sweep.node.metric, key, exhaustive
        self.sets = Subsets(key, base or (), candidates, overrides or (), overrides_by_size or {})
        self.stop_rule = self._stop_rule(stop)
        self.facts = dict(self.sets.published(number, node) for number, node in enumerate(sets or ()))
        self._check_key()
        if names := self.sets.names():
            self.check_findings({*names, BLIND})
        self.scores: dict[Members, Score] = {}
        self.current: Members = self.sets.base
        self.path = [self.sets.base] if self.sets.base else []
        """The base and what was kept of each round."""
        self.batch: list[Members] = []
        self.waiting: set[tuple[Members, int]] = set()
        self._killed: set[tuple[Members, int]] = set()
        """Tried once more, as their killer may not come again."""
        self._in_rounds = True
        self.rounds: list[dict[str, Any]] = []
        self.why = ""
        self.selected: str | None = None
        self.regrets: dict[str, Any] = {}

    def first(self) -> Sequence[Request]:
        """The base, the sets of the first round, and at scale lab the base without images."""
        return [*self._begin_round(), *self._blind()]

    def examples(self) -> Sequence[Request]:
        """Those of the first round, and the largest set."""
        sets = dict.fromkeys([*self.sets.first(), (*self.sets.base, *self.sets.candidates)])
        return [*self._requests(list(sets)), *self._blind()]

    def at_most(self) -> int:
        number = len(self.sets.candidates)
        sets = number * (number + 1) // 2 + (1 if self.sets.base else 0)
        if self.exhaustive:
            sets = 2**number - (0 if self.sets.base else 1)
        return sets * len(self.sweep.seeds) + len(self._blind())

    def then(self, ended: Measured) -> Sequence[Request]:
        """Once all of a batch have ended: the next round, the other subsets, or nothing more."""
        request = ended.trial.request
        members = next((members for members in self.batch if self.sets.name(members) == request.row), None)
        if members is None or (members, request.seed) not in self.waiting:
            return ()
        if ended.status == KILLED and (members, request.seed) not in self._killed:
            self._killed.add((members, request.seed))
            return [request]
        self._take(self.scores[members], ended)
        self.waiting.discard((members, request.seed))
        if self.waiting:
            return ()
        return self._end_round() if self._in_rounds else self._end_exhaustive()

    def node(self) -> dict[str, Any]:
        """With the sets so far as rows, and the first one as baseline."""
        rows = {
            self.sets.name(members): {"overrides": self.sets.overrides_of(members), **self.facts.get(members, {})}
            for members in self.scores
        }
        return {**super().node(), "rows": rows, "baseline": self.sets.name(self.sets.first()[0])}

    def trace(self) -> dict[str, Any]:
        """Rounds, the scores of all sets, the result and why the search ended there."""
        found = {
            "kind": "round_robin",
            "key": self.key,
            "metric": self.metric,
            "base": list(self.sets.base),
            "candidates": list(self.sets.candidates),
            "stop": str(self.stop_rule),
            "sets": {self.sets.name(members): self._told_score(score) for members, score in self.scores.items()},
            "rounds": self.rounds,
            "selected": self.selected,
            "why": self.why,
        }
        return {**found, "exhaustive": self.regrets} if self.regrets else found

    def decide(self, tried: Sequence[Members]) -> Decision:
        """Which of a round's sets is best, and whether it is kept."""
        start = self.scores[self.current] if self.current else None
        scores = [self.scores[members] for members in tried]
        return decide(self.stop_rule, start, scores, list(self.scores.values()), self.sweep.seeds)

    def _left(self) -> list[str]:
        return [name for name in self.sets.candidates if name not in self.current]

    def _begin_round(self) -> list[Request]:
        tried = [self.sets.joined(self.current, name) for name in self._left()]
        start = self.sets.name(self.current) if self.current else None
        self.rounds.append({"start": start, "tried": [self.sets.name(members) for members in tried]})
        return self._measure([self.sets.base, *tried] if self.sets.base and not self.scores else tried)

    def _measure(self, sets: Sequence[Members]) -> list[Request]:
        self.batch = list(sets)
        self.waiting = {(members, seed) for members in sets for seed in self.sweep.seeds}
        for members in sets:
            self.scores[members] = Score(members=members)
        return self._requests(sets)

    def _requests(self, sets: Sequence[Members]) -> list[Request]:
        """Sets x seeds, seeds last."""
        return [
            self.sweep.request(self.sets.name(members), seed, self.sets.overrides_of(members))
            for seed in self.sweep.seeds
            for members in sets
        ]

    def _blind(self) -> list[Request]:
        if not self.sweep.adds_blind:
            return []
        overrides = blind_overrides(self.sets.overrides_of(self.sets.base or self.sets.candidates[:1]))
        return [self.sweep.request(BLIND, seed, overrides) for seed in self.sweep.seeds]

    def _take(self, score: Score, ended: Measured) -> None:
        """Raises ``UserError`` when a finished trial lacks the metric."""
        if ended.status != DONE:
            score.problem = f"{ended.status}: {ended.reason}"
        elif self.metric not in ended.metrics:
            raise UserError(f"sweep.metric: results have no '{self.metric}'; {nearest(self.metric, ended.metrics)}")
        else:
            score.values[ended.trial.request.seed] = ended.metrics[self.metric]
            score.costs = dict(ended.costs)
        score.complete = set(score.values) == set(self.sweep.seeds)

    def _end_round(self) -> list[Request]:
        tried = [members for members in self.batch if members != self.current]
        decision = self.decide(tried)
        self.rounds[-1] |= self._told(decision)
        self._say(decision)
        if decision.best is not None and decision.kept:
            self.current = decision.best
            self.path.append(self.current)
            if self._left():
                return self._begin_round()
            self.why = "no candidate is left"
        else:
            self.why = "no candidate has a result" if decision.best is None else "no candidate is better enough"
        self._select()
        self._in_rounds = False
        return self._measure_rest() if self.exhaustive else []

    def _select(self) -> None:
        """The best set of the path; of equal ones the smaller."""
        best = max(self.path, key=lambda members: self.scores[members].mean, default=None)
        if best is not None and self.scores[best].complete:
            self.selected = self.sets.name(best)

    def _measure_rest(self) -> list[Request]:
        """All other subsets."""
        rest = [members for members in self.sets.all() if members not in self.scores]
        return self._measure(rest) if rest else self._end_exhaustive()

    def _end_exhaustive(self) -> list[Request]:
        """What the greedy path loses against the best set of each size, and of all."""
        greedy = {len(members): members for members in self.path}
        by_size: dict[int, list[Members]] = {}
        for members in self.sets.all():
            by_size.setdefault(len(members), []).append(members)
        sizes: list[dict[str, Any]] = []
        for size, sets in by_size.items():
            facts = self._regret(sets, greedy.get(size, ()))
            sizes.append({"size": size, "best": facts[0], "greedy": self.sets.name(greedy.get(size, ())) or None})
            sizes[-1]["regret"] = facts[1]
        chosen = next((members for members in self.path if self.sets.name(members) == self.selected), ())
        best, regret = self._regret(list(self.sets.all()), chosen)
        self.regrets = {"sizes": sizes, "best": best, "regret": regret}
        return []

    def _regret(self, sets: Sequence[Members], other: Members) -> tuple[str | None, float | None]:
        """The best of some sets, and how far another one is below it."""
        best = best_of([self.scores[members] for members in sets])
        if best is None:
            return None, None
        known = bool(other) and self.scores[other].complete
        return self.sets.name(best.members), best.mean - self.scores[other].mean if known else None

    def _told(self, decision: Decision) -> dict[str, Any]:
        """A decision in JSON."""
        needed = decision.needed
        return {
            "ranked": [self.sets.name(members) for members in decision.ranked],
            "best": self.sets.name(decision.best) if decision.best else None,
            "kept": decision.kept,
            "tied": [self.sets.name(members) for members in decision.tied],
            "improvement": decision.improvement,
            "needed": needed if needed is None or math.isfinite(needed) else None,
        }

    def _told_score(self, score: Score) -> dict[str, Any]:
        return {
            "members": list(score.members),
            "mean": score.mean if score.complete else None,
            "std": score.std,
            "values": {str(seed): value for seed, value in score.values.items()},
            "costs": {name: score.costs[name] for name in ("visual_tokens", "parameters") if name in score.costs},
            "problem": score.problem,
        }

    def _say(self, decision: Decision) -> None:
        """A line for the terminal, and one for each set that was left out."""
        number = len(self.rounds)
        for members in decision.ranked:
            if not self.scores[members].complete:
                problem = self.scores[members].problem
                self.sweep.say(f"round {number}: {self.sets.name(members)} is left out, {problem}")
        if decision.best is None:
            return
        text = f"round {number}: {self.sets.name(decision.best)} is best, {self.metric}"
        text += f" {self.scores[decision.best].mean:.2f}"
        if decision.improvement is not None:
            text += f", {decision.improvement:+.2f} over {self.sets.name(self.current)}"
        if decision.needed is not None and self.current:
            text += f" (needed {decision.needed:.2f})"
        if decision.tied:
            text += (
                f"; as good as {', '.join(self.sets.name(members) for members in decision.tied[1:])}, chosen by cost"
            )
        self.sweep.say(text + ("; kept" if decision.kept else "; the search ends"))

    def _stop_rule(self, node: dict[str, Any] | None) -> StopRule:
        seeds = len(self.sweep.seeds)
        if node is None:
            return SeedNoise() if seeds > 1 else MinImprovement(0.0)
        rule: StopRule = instantiate(node, f"{SEARCH}.stop", expect=StopRule)
        if seeds < rule.min_seeds:
            raise UserError(f"{SEARCH}.stop: {rule} needs {rule.min_seeds} seeds; give sweep.seeds, or another rule")
        return rule

    def _check_key(self) -> None:
        """The key can be searched over, and has the options that are named."""
        line = self.sweep.line
        for given in line.ranges:
            raise UserError(f"{given}: has several values; a round-robin search varies {self.key} only")
        if self.key in line.keys:
            raise UserError(f"{self.key}: is searched over, so the command line cannot set it")
        if self.key not in LISTS:
            return _check_list(self.sweep.base.config, self.key)
        there = options(self.key, self.sweep.scale)
        for place, names in (("base", self.sets.base), ("candidates", self.sets.candidates)):
            for name in names:
                if name not in there:
                    raise UserError(
                        f"{SEARCH}.{place}: no {self.key} '{name}' at scale {self.sweep.scale}; {nearest(name, there)}"
                    )
        return None


def _check_list(config: Any, key: str) -> None:
    """Raises ``UserError`` for a key that the config lacks, or whose value is not a list."""
    from omegaconf import ListConfig, OmegaConf

    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    there = list(map(str, node)) if hasattr(node, "keys") else []
    if name not in there:
        known = there if parent else [*there, *LISTS]
        raise UserError(f"{SEARCH}.key: there is no '{key}'; {nearest(name, known)}")
    value = OmegaConf.select(config, key)
    if value is not None and not isinstance(value, ListConfig):
        raise UserError(f"{SEARCH}.key: {key} is not a list")
