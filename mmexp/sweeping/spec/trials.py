"""Requests become trials: composed, frozen, keyed; every mistake of every row in one list."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mmexp.config import Composed, Composer
from mmexp.errors import UserError
from mmexp.stages.graph import Graph, build_graph
from mmexp.stages.run import TrialContext
from mmexp.sweeping.spec.rows import Request

Validator = Callable[[Mapping[str, Any]], None]
"""Raises ``UserError`` for the first thing in a resolved config that cannot work."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A frozen trial: its resolved config and its stages; the key is that of the last stage."""

    request: Request
    config: Mapping[str, Any]
    choices: Mapping[str, Any]
    graph: Graph

    @property
    def key(self) -> str:
        return self.graph.key

    def context(self, sweep: str | None) -> TrialContext:
        """What its stages may say about it."""
        request = self.request
        axes = [f"{axis}={value}" for axis, value in request.axes.items()]
        return TrialContext(
            key=self.key,
            sweep=sweep,
            row=request.row,
            tags=[request.row, *axes, f"seed={request.seed}"],
            config=self.config,
            choices=self.choices,
            stage_keys=self.graph.keys,
        )


class Mistakes:
    """Mistakes and the rows that make them; the same one in several rows is one line."""

    def __init__(self) -> None:
        self.rows: dict[str, list[str]] = {}

    @contextmanager
    def of(self, request: Request) -> Iterator[None]:
        """Collects a ``UserError`` of one request; those of a row that is not selected do not matter."""
        try:
            yield
        except UserError as error:
            for line in str(error).splitlines() if request.selected else ():
                rows = self.rows.setdefault(line, [])
                if request.label not in rows:
                    rows.append(request.label)

    def raise_if_any(self) -> None:
        if self.rows:
            raise UserError("\n".join(f"{', '.join(rows)}: {line}" for line, rows in self.rows.items()))


def freeze(composer: Composer, requests: Sequence[Request], mistakes: Mistakes) -> list[Trial]:
    """Compose each request once per row and point, resolve it for each seed, and build its graph.

    A row that is not selected and cannot be composed is left out; of a selected one the mistake is kept.
    """
    composed: dict[tuple[str, ...], Composed | UserError] = {}
    trials = []
    for request in requests:
        if request.overrides not in composed:
            try:
                composed[request.overrides] = composer.compose(request.overrides)
            except UserError as error:
                composed[request.overrides] = error
        with mistakes.of(request):
            base = composed[request.overrides]
            if isinstance(base, UserError):
                raise base
            trials.append(freeze_one(request, base))
    return trials


def freeze_one(request: Request, composed: Composed) -> Trial:
    """The trial of one request. Raises ``UserError``."""
    config = composed.resolved(seed=request.seed)
    config.pop("sweep", None)
    return Trial(request=request, config=config, choices=composed.choices, graph=build_graph(config))


def validate_all(trials: Sequence[Trial], validate: Validator, mistakes: Mistakes) -> None:
    """Check one seed of each row and point; seeds cannot change what fits together."""
    seen = set()
    for trial in trials:
        if trial.request.label not in seen:
            seen.add(trial.request.label)
            with mistakes.of(trial.request):
                validate(trial.config)


def shared_trials(trials: Sequence[Trial]) -> list[list[str]]:
    """Rows that are the same trial, in groups."""
    labels: dict[tuple[str, int], list[str]] = {}
    for trial in trials:
        labels.setdefault((trial.key, trial.request.seed), []).append(trial.request.label)
    groups = {tuple(group): None for group in labels.values() if len(group) > 1}
    return [list(group) for group in groups]
