"""A sweep's file and its command line, composed once; requests become frozen, checked trials."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from mmexp.config import Composed, Composer
from mmexp.config.schema import read_node
from mmexp.errors import UserError
from mmexp.stages.graph import build_graph
from mmexp.stages.store import Store
from mmexp.sweeping.spec.command_line import CommandLine, read_command_line
from mmexp.sweeping.spec.schema import SweepNode
from mmexp.sweeping.spec.table import Request
from mmexp.sweeping.spec.trials import Mistakes, Trial

Validator = Callable[[Mapping[str, Any]], None]
"""Raises ``UserError`` for what cannot work in a resolved config."""
BLIND_SCALE = "lab"
"""Scale at which every sweep gets the blind baseline by itself."""
MANY = 3
"""More items than this are worth a line, or a bar on a terminal."""
Item = TypeVar("Item")


class Sweep:
    """What a kind of sweep is built from. Made by ``open_sweep``.

    Attributes:
        scale: name.
        line: the command line.
        base: the config that all trials differ from; interpolations are not resolved.
        node: the config node ``sweep``, typed; of a plain multirun all defaults.
        seeds: each trial is run with: the command line's, else the file's.
        store, folder: where trials are finished; where the sweep's ledger, logs and report are.
        slots: trials that can run at a time.
        retry_failed: what failed in an earlier run is to be run again.
    """

    def __init__(self, composer: Composer, arguments: Sequence[str], validate: Validator, events: Console) -> None:
        self.scale, self.events = composer.scale, events
        self.line: CommandLine = read_command_line(arguments)
        self.slots, self.retry_failed = 1, False
        self._composer, self._validate = composer, validate
        self.base: Composed = composer.compose(self.line.plain)
        self.raw = sweep_node(self.base)
        """The node as the file has it, in plain containers; overrides in it keep their interpolations."""
        self.node = read_node(SweepNode, self.raw, "sweep")
        self.seeds: tuple[int, ...] = self.line.seeds or tuple(dict.fromkeys(self.node.seeds))
        paths = paths_of(self.base)
        self.store = Store.from_config({"paths": paths})
        self.folder = sweep_folder(paths, self.scale, self.line.name)
        self._composed: dict[tuple[str, ...], Composed | UserError] = {}
        self._trials: dict[tuple[tuple[str, ...], int], Trial | UserError] = {}
        self._checked: dict[tuple[str, ...], UserError | None] = {}

    @property
    def adds_blind(self) -> bool:
        """Whether a row without images, with which every report compares, is added."""
        return self.scale == BLIND_SCALE

    @property
    def is_multirun(self) -> bool:
        """There is no sweep's file: all comes from the command line."""
        return self.line.sweep is None and not self.raw

    def num_threads(self) -> int | None:
        """Threads of a stage, so that workers can get ready while trials are composed; None where it is left open."""
        found: int | None = self.base.config.trainer.get("num_threads") if self.base.config.get("trainer") else None
        return found

    def search_node(self) -> dict[str, Any]:
        """``sweep.search`` with its interpolations filled in (sizes differ between scales); empty for a table."""
        from omegaconf import OmegaConf

        if not self.node.search:
            return {}
        found: Any = OmegaConf.to_container(self.base.config.sweep.search, resolve=True)
        return found

    def resolved(self, *overrides: str) -> dict[str, Any]:
        """The config of the command line with further overrides. Raises ``UserError``."""
        return self._compose((*self.line.for_trials, *overrides)).resolved()

    def request(self, row: str, seed: int, overrides: Sequence[str]) -> Request:
        """A cell without axes; ``overrides`` come after the command line's."""
        return Request(row=row, axes={}, seed=seed, overrides=(*self.line.for_trials, *overrides))

    def freeze(self, requests: Sequence[Request]) -> list[Trial]:
        """Compose, resolve and key; each combination of overrides once.

        A row that is not selected and cannot be composed is left out.

        Raises:
            UserError: all mistakes of all requests, each with its rows.
        """
        mistakes, trials = Mistakes(), []
        for request in self.working("composing", requests):
            with mistakes.of(request):
                trials.append(self._freeze_one(request))
        mistakes.raise_if_any()
        return trials

    def check(self, trials: Sequence[Trial]) -> None:
        """Validate one seed of each combination of overrides: seeds cannot change what fits together.

        Raises:
            UserError: all mistakes of all trials, each with its rows.
        """
        mistakes = Mistakes()
        distinct = {trial.request.overrides: trial for trial in reversed(trials)}
        for trial in self.working("checking", list(reversed(distinct.values()))):
            with mistakes.of(trial.request):
                self._check_one(trial)
        mistakes.raise_if_any()

    def say(self, text: str) -> None:
        """A line for the terminal."""
        self.events.print(text, markup=False, highlight=False, soft_wrap=True)

    def working(self, verb: str, items: Sequence[Item]) -> Iterable[Item]:
        """The items, with a bar on a terminal and a line elsewhere where they are many."""
        if len(items) <= MANY:
            return items
        if self.events.is_terminal:
            from rich.progress import track

            return track(items, verb, console=self.events, transient=True)
        self.say(f"{verb} {len(items)} trials")
        return items

    def _check_one(self, trial: Trial) -> None:
        """Raises ``UserError``; the same one for the same overrides."""
        place = trial.request.overrides
        if place not in self._checked:
            try:
                self._validate(trial.config)
                self._checked[place] = None
            except UserError as error:
                self._checked[place] = error
        if known := self._checked[place]:
            raise known

    def _freeze_one(self, request: Request) -> Trial:
        """Raises ``UserError``; the same one for the same overrides."""
        place = (request.overrides, request.seed)
        if place not in self._trials:
            try:
                composed = self._compose(request.overrides)
                config = composed.with_seed(request.seed)
                graph = build_graph(config)
                self._trials[place] = Trial(request=request, config=config, choices=composed.choices, graph=graph)
            except UserError as error:
                self._trials[place] = error
        known = self._trials[place]
        if isinstance(known, UserError):
            raise known
        if known.request == request:
            return known
        return Trial(request=request, config=known.config, choices=known.choices, graph=known.graph)

    def _compose(self, overrides: tuple[str, ...]) -> Composed:
        if overrides not in self._composed:
            try:
                self._composed[overrides] = self._composer.compose(overrides)
            except UserError as error:
                self._composed[overrides] = error
        found = self._composed[overrides]
        if isinstance(found, UserError):
            raise found
        return found


@contextmanager
def open_sweep(scale: str, arguments: Sequence[str], validate: Validator, events: Console) -> Iterator[Sweep]:
    """Compose a sweep's config; trials are composed while it is open.

    Raises:
        UserError: the command line or the sweep's file cannot be read.
    """
    with Composer(scale).open() as composer:
        yield Sweep(composer, arguments, validate, events)


def sweep_node(base: Composed) -> dict[str, Any]:
    """The config node ``sweep`` as plain containers, unresolved; empty where there is none."""
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(base.config.sweep, resolve=False) if base.config.get("sweep") else {}
    return found


def paths_of(base: Composed) -> dict[str, Any]:
    """The config node ``paths``, resolved."""
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(base.config.paths, resolve=True)
    return found


def sweep_folder(paths: Mapping[str, Any], scale: str, name: str) -> Path:
    """Where a sweep's ledger, logs and report are."""
    return Path(paths["sweeps"]).absolute() / scale / name
