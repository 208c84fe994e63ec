"""Kind ``round_robin``: greedy forward selection over a list, rounds as parallel batches.

Eagle's search over experts (arXiv 2408.15998, section 3.5; papers' notes in the sweep's file): every candidate is added
to the best set so far, all are trained and evaluated, the best is kept, until the stop rule ends it. Differences to the
paper: several seeds, a stop rule beside "until none is left", ties by cost, and sets in one canonical order, so that a
set is one trial whichever way led to it. The node ``sweep.search`` is described in docs/sweeps.md.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmexp.config import Composer
from mmexp.config.composition import LISTS
from mmexp.config.folders import options
from mmexp.errors import UserError, nearest
from mmexp.files import DONE, KILLED
from mmexp.sweeping.engine.control import Controller, Measured
from mmexp.sweeping.search.selection import Decision, Members, Score, Settings, Stop, decide, read_settings
from mmexp.sweeping.search.table import BLIND_SCALE
from mmexp.sweeping.session import Session, sweep_node
from mmexp.sweeping.spec.overrides import key_of
from mmexp.sweeping.spec.rows import BLIND, BLIND_OVERRIDE, CommandLine, Request, node_seeds
from mmexp.sweeping.spec.trials import Mistakes, Trial, freeze

KIND = "round_robin"


def search(session: Session) -> Path | None:
    """Run the search. Returns the sweep's folder; None for a dry run."""
    settings = settings_for(session.base, session.node, session.line, session.order.scale)
    first = settings.first()
    requests = [*requests_for(settings, first, session.line), *blind_requests(settings, session)]
    trials = session.submit(requests)
    if session.dry_run:
        blind = sum(trial.request.row == BLIND for trial in trials)
        session.preview(trials, at_most=settings.at_most() * len(settings.seeds) + blind)
        return None
    node = {**session.node, "seeds": list(settings.seeds), "rows": {}, "baseline": settings.name(first[0])}
    with session.control(node) as controller:
        RoundRobin(session, settings, controller, node).run(trials)
    return session.finish(controller)


def load(scale: str, line: CommandLine) -> tuple[dict[str, Any], list[Trial]]:
    """The node ``sweep`` and the trials of the first round and of the largest set. Raises ``UserError``."""
    mistakes = Mistakes()
    with Composer(scale).open() as composer:
        base = composer.compose(line.plain)
        node = sweep_node(base)
        settings = settings_for(base, node, line, scale)
        sets = [*settings.first(), (*settings.base, *settings.candidates)]
        trials = freeze(composer, requests_for(settings, list(dict.fromkeys(sets)), line), mistakes)
    mistakes.raise_if_any()
    return node, trials


def settings_for(base: Any, node: dict[str, Any], line: CommandLine, scale: str) -> Settings:
    """Raises ``UserError``: what is wrong in the node, or in names that it has from elsewhere."""
    if "search" not in node:
        raise UserError(
            "sweep.search: hydra/sweeper=round_robin needs it: {kind: round_robin, key: ..., candidates: []}"
        )
    settings = read_settings(node, line.seeds or node_seeds(node))
    key = settings.key
    for given in line.ranges:
        raise UserError(f"{given}: has several values; a round-robin search varies {key} only")
    if key in line.keys:
        raise UserError(f"{key}: is searched over, so the command line cannot set it")
    if key in LISTS:
        there = options(key, scale)
        for place, names in (("base", settings.base), ("candidates", settings.candidates)):
            for name in names:
                if name not in there:
                    raise UserError(f"sweep.search.{place}: no {key} '{name}' at scale {scale}; {nearest(name, there)}")
    else:
        _check_list(base.config, key)
    return settings


def _check_list(config: Any, key: str) -> None:
    """Raises ``UserError`` for a key that the config lacks, or whose value is no list."""
    from omegaconf import ListConfig, OmegaConf

    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    there = list(map(str, node)) if hasattr(node, "keys") else []
    if name not in there:
        known = there if parent else [*there, *LISTS]
        raise UserError(f"sweep.search.key: there is no '{key}'; {nearest(name, known)}")
    value = OmegaConf.select(config, key)
    if value is not None and not isinstance(value, ListConfig):
        raise UserError(f"sweep.search.key: {key} is no list")


def requests_for(settings: Settings, sets: Sequence[Members], line: CommandLine) -> list[Request]:
    """Sets x seeds, seeds last."""
    return [
        Request(
            row=settings.name(members),
            axes={},
            seed=seed,
            overrides=(*line.for_trials, *settings.overrides_of(members)),
            selected=True,
        )
        for seed in settings.seeds
        for members in sets
    ]


def blind_requests(settings: Settings, session: Session) -> list[Request]:
    """At scale lab: the first set without images, which every report compares with."""
    if session.order.scale != BLIND_SCALE:
        return []
    members = settings.base or settings.candidates[:1]
    own = [text for text in settings.overrides_of(members) if key_of(text).split(".")[0] != "recipe"]
    overrides = (*session.line.for_trials, *own, BLIND_OVERRIDE)
    return [Request(row=BLIND, axes={}, seed=seed, overrides=overrides, selected=True) for seed in settings.seeds]


class RoundRobin:
    """A search while it runs; what it has decided is in the ledger after every step."""

    def __init__(self, session: Session, settings: Settings, controller: Controller, node: dict[str, Any]) -> None:
        self.session, self.settings, self.controller, self.node = session, settings, controller, node
        self.scores: dict[Members, Score] = {}
        self.trace: dict[str, Any] = {
            "kind": KIND,
            "key": settings.key,
            "metric": settings.metric,
            "base": list(settings.base),
            "candidates": list(settings.candidates),
            "stop": str(settings.stop),
            "sets": {},
            "rounds": [],
            "selected": None,
            "why": "",
        }

    def run(self, first: Sequence[Trial]) -> None:
        """Round after round; ``first`` are the trials of the base, the first round and the blind row."""
        current = self.settings.base
        path = [current] if current else []
        batch: Sequence[Trial] | None = first
        while left := [name for name in self.settings.candidates if name not in current]:
            tried = [self.settings.joined(current, name) for name in left]
            step: dict[str, Any] = {"start": self.name(current), "tried": [self.name(members) for members in tried]}
            self.trace["rounds"].append(step)
            self.measure([current, *tried] if batch and current else tried, batch)
            batch = None
            decision = self.decide(current, tried)
            step |= self.told(decision)
            self.say(len(self.trace["rounds"]), current, decision)
            if not decision.kept or decision.best is None:
                self.trace["why"] = (
                    "no candidate has a result" if decision.best is None else "no candidate is better enough"
                )
                break
            current = decision.best
            path.append(current)
        else:
            self.trace["why"] = "no candidate is left"
        self.select(path)
        if self.settings.exhaustive:
            self.exhaust(path)
        self.note()

    def decide(self, current: Members, tried: Sequence[Members]) -> Decision:
        scores = [self.scores[members] for members in tried]
        start = self.scores[current] if current else None
        return decide(self.settings.stop, start, scores, list(self.scores.values()), self.settings.seeds)

    def measure(self, sets: Sequence[Members], trials: Sequence[Trial] | None = None) -> None:
        """Run sets with all seeds; what was killed is tried once more, as its killer may not come again."""
        for members in sets:
            facts = self.settings.facts.get(members, {})
            row = {"overrides": list(self.settings.overrides_of(members)), **facts}
            self.node["rows"].setdefault(self.name(members), row)
            self.scores.setdefault(members, Score(members=members))
        self.note()
        if trials is None:
            trials = self.session.submit(requests_for(self.settings, sets, self.session.line))
        answers = self.controller.run(trials)
        if killed := [answer.trial for answer in answers if answer.status == KILLED]:
            again = {id(answer.trial): answer for answer in self.controller.run(killed)}
            answers = [again.get(id(answer.trial), answer) for answer in answers]
        for members in sets:
            self.scores[members] = self.score(members, answers)
        self.note()

    def score(self, members: Members, answers: Sequence[Measured]) -> Score:
        """Raises ``UserError`` when a finished trial lacks the metric."""
        score, metric = Score(members=members), self.settings.metric
        for answer in answers:
            if answer.trial.request.row != self.name(members):
                continue
            if answer.status != DONE:
                score.problem = f"{answer.status}: {answer.reason}"
            elif metric not in answer.metrics:
                raise UserError(f"sweep.metric: results have no '{metric}'; {nearest(metric, answer.metrics)}")
            else:
                score.values[answer.trial.request.seed] = answer.metrics[metric]
                score.costs = dict(answer.costs)
        score.complete = set(score.values) == set(self.settings.seeds)
        return score

    def select(self, path: Sequence[Members]) -> None:
        """The best set of the path; of equal ones the smaller."""
        best = max((members for members in path), key=lambda members: self.scores[members].mean, default=None)
        if best is not None and self.scores[best].complete:
            self.trace["selected"] = self.name(best)

    def exhaust(self, path: Sequence[Members]) -> None:
        """All other subsets, and what the greedy path loses against them."""
        rest = [members for members in self.settings.subsets() if members not in self.scores]
        self.measure(rest)
        greedy = {len(members): members for members in path}
        sizes: list[dict[str, Any]] = []
        for size in sorted({len(members) for members in self.settings.subsets()}):
            best = self.best([members for members in self.settings.subsets() if len(members) == size])
            sizes.append({"size": size, "best": self.name(best), "greedy": self.name(greedy.get(size, ()))})
            sizes[-1]["regret"] = self.regret(best, greedy.get(size, ()))
        chosen = next((members for members in path if self.name(members) == self.trace["selected"]), ())
        best = self.best(list(self.settings.subsets()))
        regret = self.regret(best, chosen)
        self.trace["exhaustive"] = {"sizes": sizes, "best": self.name(best), "regret": regret}

    def best(self, sets: Sequence[Members]) -> Members:
        """Empty when none has a mean."""
        found = decide(Stop("exhaust"), None, [self.scores[members] for members in sets], [], self.settings.seeds)
        return found.best or ()

    def regret(self, best: Members, other: Members) -> float | None:
        known = best and other and self.scores[best].complete and self.scores[other].complete
        return self.scores[best].mean - self.scores[other].mean if known else None

    def name(self, members: Members) -> str | None:
        return self.settings.name(members) if members else None

    def told(self, decision: Decision) -> dict[str, Any]:
        """A decision in JSON."""
        needed = decision.needed
        return {
            "ranked": [self.name(members) for members in decision.ranked],
            "best": self.name(decision.best or ()),
            "kept": decision.kept,
            "tied": [self.name(members) for members in decision.tied],
            "improvement": decision.improvement,
            "needed": needed if needed is None or math.isfinite(needed) else None,
        }

    def say(self, number: int, current: Members, decision: Decision) -> None:
        """One line for the terminal."""
        lost = [members for members in decision.ranked if not self.scores[members].complete]
        for members in lost:
            text = f"round {number}: {self.name(members)} is left out, {self.scores[members].problem}"
            self.session.events.print(text, markup=False, soft_wrap=True)
        if decision.best is None:
            return
        text = f"round {number}: {self.name(decision.best)} is best, {self.settings.metric}"
        text += f" {self.scores[decision.best].mean:.2f}"
        if decision.improvement is not None:
            text += f", {decision.improvement:+.2f} over {self.name(current)}"
        if decision.needed is not None and current:
            text += f" (needed {decision.needed:.2f})"
        if decision.tied:
            text += (
                f"; as good as {', '.join(str(self.name(members)) for members in decision.tied[1:])}, chosen by cost"
            )
        self.session.events.print(
            text + ("; kept" if decision.kept else "; the search ends"), markup=False, soft_wrap=True
        )

    def note(self) -> None:
        """Write what is known into the ledger."""
        self.trace["sets"] = {
            str(self.name(members)): {
                "members": list(members),
                "mean": score.mean if score.complete else None,
                "std": score.std,
                "values": {str(seed): value for seed, value in score.values.items()},
                "costs": {name: score.costs[name] for name in ("visual_tokens", "parameters") if name in score.costs},
                "problem": score.problem,
            }
            for members, score in self.scores.items()
        }
        self.controller.ledger.search = self.trace
        self.controller.ledger.save()
