"""Forward selection over a list: what a sweep's node says, and the decision of one round. Nothing is run here."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmexp.errors import UserError, nearest
from mmexp.sweeping.spec.findings import check_findings
from mmexp.sweeping.spec.overrides import as_text, key_of, parse
from mmexp.sweeping.spec.rows import BLIND

NODE_KEYS = ("title", "source", "metric", "seeds", "search", "findings", "note")
SEARCH_KEYS = ("kind", "key", "base", "candidates", "overrides", "overrides_by_size", "stop", "exhaustive", "sets")
SET_KEYS = ("set", "published", "note")
EXHAUST, MIN_IMPROVEMENT, SEED_NOISE = "exhaust", "min_improvement", "seed_noise"
CONFIDENCE = 0.95
SAME = 1e-9
"""Means that differ by less are equal."""

Members = tuple[str, ...]
"""A set in its canonical order: the base, then the candidates as they are listed."""


@dataclass(frozen=True, slots=True)
class Stop:
    """When a round ends the search."""

    kind: str
    amount: float = 0.0
    """Least improvement; for ``seed_noise`` the confidence level."""

    def __str__(self) -> str:
        return self.kind if self.kind == EXHAUST else f"{self.kind} {self.amount:g}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The node ``sweep`` of a round-robin search, checked."""

    metric: str
    key: str
    base: Members
    candidates: Members
    overrides: tuple[str, ...]
    overrides_by_size: Mapping[int, tuple[str, ...]]
    stop: Stop
    exhaustive: bool
    facts: Mapping[Members, Mapping[str, Any]]
    """Set -> ``published`` and ``note``."""
    seeds: tuple[int, ...]

    def joined(self, members: Sequence[str], candidate: str) -> Members:
        """A set with one more candidate, in canonical order."""
        return self.ordered({*members, candidate})

    def first(self) -> list[Members]:
        """The base, and the sets of the first round."""
        return [*([self.base] if self.base else []), *(self.joined(self.base, name) for name in self.candidates)]

    def ordered(self, members: set[str]) -> Members:
        return tuple(name for name in (*self.base, *self.candidates) if name in members)

    def name(self, members: Members) -> str:
        """Name of a set's row: an identifier where its members are, so that findings can name it."""
        return re.sub(r"\W+", "_", "_".join(members))

    def overrides_of(self, members: Members) -> tuple[str, ...]:
        """What makes a config one of this set."""
        own = [*self.overrides, *self.overrides_by_size.get(len(members), ())]
        return (f"{self.key}=[{','.join(members)}]", *{key_of(text): text for text in own}.values())

    def subsets(self) -> Iterator[Members]:
        """All sets, small ones first."""
        for size in range(len(self.candidates) + 1):
            for chosen in itertools.combinations(self.candidates, size):
                if members := (*self.base, *chosen):
                    yield members

    def at_most(self) -> int:
        """Sets that the search can come to."""
        number = len(self.candidates)
        if self.exhaustive:
            return 2**number - (0 if self.base else 1)
        return number * (number + 1) // 2 + (1 if self.base else 0)


@dataclass(kw_only=True)
class Score:
    """What is known of a set."""

    members: Members
    values: dict[int, float] = field(default_factory=dict)
    """Seed -> metric."""
    problem: str = ""
    """Why a seed has none."""
    costs: dict[str, float] = field(default_factory=dict)
    complete: bool = False
    """Every seed has a value."""

    @property
    def mean(self) -> float:
        return math.fsum(self.values.values()) / len(self.values) if self.complete else -math.inf

    @property
    def std(self) -> float | None:
        """Sample standard deviation over seeds."""
        if not self.complete or len(self.values) < 2:
            return None
        return math.sqrt(math.fsum((v - self.mean) ** 2 for v in self.values.values()) / (len(self.values) - 1))


@dataclass(frozen=True, kw_only=True)
class Decision:
    """How a round ended."""

    ranked: list[Members]
    """Best first; those without a mean last."""
    best: Members | None
    """None when no candidate has a result for every seed."""
    tied: list[Members]
    """Sets with the best mean, when there are several."""
    improvement: float | None
    """None without a set to improve on."""
    needed: float | None
    """What the improvement is compared with; None for ``exhaust``."""
    kept: bool


def decide(
    stop: Stop, current: Score | None, tried: Sequence[Score], scores: Sequence[Score], seeds: Sequence[int]
) -> Decision:
    """The decision of one round.

    Args:
        current: the set that candidates were added to; None at the start from nothing.
        tried: the round's sets, in the order of their candidates.
        scores: all sets measured so far, for the seeds' noise.
    """
    top = max((score.mean for score in tried), default=-math.inf)
    equal = [score for score in tried if score.complete and top - score.mean <= SAME]
    ranked = sorted(tried, key=lambda score: (score not in equal, 0.0 if score in equal else -score.mean, _cost(score)))
    order = [score.members for score in ranked]
    if not equal:
        return Decision(ranked=order, best=None, tied=[], improvement=None, needed=None, kept=False)
    tied = [score.members for score in ranked if score in equal] if len(equal) > 1 else []
    improvement = ranked[0].mean - current.mean if current is not None and current.complete else None
    needed = None if stop.kind == EXHAUST else stop.amount
    if stop.kind == SEED_NOISE:
        needed = noise(scores, len(tried), seeds, stop.amount)
    if current is None or needed is None:
        kept = True
    elif improvement is None:
        kept = False
    else:
        kept = improvement > needed if stop.kind == SEED_NOISE else improvement > SAME and improvement >= needed - SAME
    return Decision(ranked=order, best=order[0], tied=tied, improvement=improvement, needed=needed, kept=kept)


def noise(scores: Sequence[Score], tried: int, seeds: Sequence[int], confidence: float) -> float:
    """What a difference of two sets' means must exceed to be more than the seeds' noise.

    ``t(1 - (1 - confidence) / tried, f) * sqrt(2 s^2 / n)`` with n seeds; s^2 is the residual variance of the two-way
    layout sets x seeds over all sets that have every seed, f = (sets - 1)(n - 1) its degrees of freedom. The best of
    ``tried`` candidates is looked at, so the level is divided among them (Bonferroni).
    """
    import numpy as np
    from scipy import stats

    table = np.array([[score.values[seed] for seed in seeds] for score in scores if score.complete])
    freedom = (len(table) - 1) * (len(seeds) - 1)
    if freedom < 1:
        return math.inf
    rest = table - table.mean(1, keepdims=True) - table.mean(0, keepdims=True) + table.mean()
    variance = float((rest**2).sum() / freedom)
    factor = float(stats.t.ppf(1 - (1 - confidence) / max(tried, 1), freedom))
    return factor * math.sqrt(2 * variance / len(seeds))


def _cost(score: Score) -> tuple[float, float]:
    """Visual tokens, then parameters; unknown ones last."""
    return (score.costs.get("visual_tokens", math.inf), score.costs.get("parameters", math.inf))


def read_settings(node: Mapping[str, Any], seeds: Sequence[int]) -> Settings:
    """The node ``sweep``. Raises ``UserError``: the first thing that is wrong."""
    for key in node:
        if key not in NODE_KEYS:
            raise UserError(f"sweep.{key}: a round-robin search has no such key; {nearest(str(key), NODE_KEYS)}")
    search = node["search"]
    for key in search:
        if key not in SEARCH_KEYS:
            raise UserError(f"sweep.search.{key}: no such key; {nearest(str(key), SEARCH_KEYS)}")
    if not isinstance(node.get("metric"), str):
        raise UserError("sweep.metric: say what is searched for, a metric or an aggregate")
    if not isinstance(search.get("key"), str):
        raise UserError("sweep.search.key: name the list that is searched over, such as encoder")
    base, candidates = _names(search, "base"), _names(search, "candidates")
    if not candidates:
        raise UserError("sweep.search.candidates: there are none; list what may be added")
    for name in candidates:
        if name in base:
            raise UserError(f"sweep.search.candidates: '{name}' is in sweep.search.base; name it once")
    if not isinstance(search.get("exhaustive", False), bool):
        raise UserError(f"sweep.search.exhaustive: {search['exhaustive']}: write true or false")
    by_size = search.get("overrides_by_size") or {}
    sizes = range(len(base) or 1, len(base) + len(candidates) + 1)
    if not isinstance(by_size, Mapping) or any(size not in sizes for size in by_size):
        raise UserError(f"sweep.search.overrides_by_size: write {{SIZE: [key=value]}}, sizes {sizes[0]} to {sizes[-1]}")
    settings = Settings(
        metric=node["metric"],
        key=search["key"],
        base=base,
        candidates=candidates,
        overrides=_overrides(search.get("overrides"), "overrides", search["key"]),
        overrides_by_size={
            size: _overrides(texts, f"overrides_by_size.{size}", search["key"]) for size, texts in by_size.items()
        },
        stop=_stop(search.get("stop"), seeds),
        exhaustive=search.get("exhaustive", False),
        facts=_facts(search.get("sets"), base, candidates),
        seeds=tuple(seeds),
    )
    _check_names(settings, node.get("findings"))
    return settings


def _names(search: Mapping[str, Any], key: str) -> Members:
    values = search.get(key, [])
    if not isinstance(values, list) or any(isinstance(value, list | Mapping) or value is None for value in values):
        raise UserError(f"sweep.search.{key}: write a list of names")
    names = tuple(as_text(value) for value in values)
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"sweep.search.{key}: '{name}' is there twice")
    return names


def _overrides(texts: Any, where: str, key: str) -> tuple[str, ...]:
    where = f"sweep.search.{where}"
    if not isinstance(texts or [], list):
        raise UserError(f"{where}: write [key=value, ...]")
    for override in parse([str(text) for text in texts or []]):
        if override.is_sweep_override():
            raise UserError(f"{where}: '{override.input_line}' has several values; a search varies {key} only")
        if override.key_or_group in (key, "seed"):
            raise UserError(f"{where}: '{override.input_line}': {override.key_or_group} is set by the search")
    return tuple(str(text) for text in texts or [])


def _stop(value: Any, seeds: Sequence[int]) -> Stop:
    if value is None:
        return Stop(SEED_NOISE, CONFIDENCE) if len(seeds) > 1 else Stop(MIN_IMPROVEMENT)
    if isinstance(value, str):
        value = {value: {EXHAUST: 0, SEED_NOISE: CONFIDENCE}.get(value)}
    kinds = (EXHAUST, SEED_NOISE, MIN_IMPROVEMENT)
    kind, amount = next(iter(value.items())) if isinstance(value, Mapping) and len(value) == 1 else ("", None)
    if kind not in kinds:
        raise UserError(
            f"sweep.search.stop: write exhaust, seed_noise or {{min_improvement: X}}; {nearest(kind, kinds)}"
        )
    if isinstance(amount, bool) or not isinstance(amount, int | float) or amount < 0:
        raise UserError(f"sweep.search.stop: write {{{kind}: NUMBER}}, not below 0")
    if kind == SEED_NOISE and not 0.5 <= amount < 1:
        raise UserError(
            f"sweep.search.stop: seed_noise is a confidence level of at least 0.5 and below 1, not {amount}"
        )
    if kind == SEED_NOISE and len(seeds) < 2:
        raise UserError("sweep.search.stop: seed_noise needs two seeds; give sweep.seeds or {min_improvement: X}")
    return Stop(kind, float(amount))


def _facts(entries: Any, base: Members, candidates: Members) -> dict[Members, dict[str, Any]]:
    found: dict[Members, dict[str, Any]] = {}
    for number, entry in enumerate(entries or []):
        where = f"sweep.search.sets[{number}]"
        if not isinstance(entry, Mapping) or not isinstance(entry.get("set"), list):
            raise UserError(f"{where}: write {{set: [name, ...], published: {{metric: number}}}}")
        for key in entry:
            if key not in SET_KEYS:
                raise UserError(f"{where}.{key}: no such key; {nearest(str(key), SET_KEYS)}")
        members = [as_text(value) for value in entry["set"]]
        for name in members:
            if name not in (*base, *candidates):
                raise UserError(f"{where}: '{name}' is no candidate; {nearest(name, (*base, *candidates))}")
        if missing := [name for name in base if name not in members]:
            raise UserError(f"{where}: every set of this search has {missing[0]}")
        ordered = tuple(name for name in (*base, *candidates) if name in members)
        found[ordered] = {key: value for key, value in entry.items() if key != "set"}
    return found


def _check_names(settings: Settings, findings: Any) -> None:
    """Members such as ``a_b, c`` and ``a, b_c`` would share a row; findings name rows that there can be."""
    if len(settings.candidates) > 12:  # as many subsets as nobody runs; those that are run are checked as they come
        return
    names: dict[str, Members] = {}
    for members in settings.subsets():
        other = names.setdefault(settings.name(members), members)
        if other != members:
            raise UserError(
                f"sweep.search.candidates: {list(other)} and {list(members)} would both be the row "
                f"'{settings.name(members)}'; rename one of them"
            )
    check_findings(findings, [*names, BLIND])
