"""Kind ``optuna``: points of a search space, asked of Optuna and told how they did.

The node ``sweep.search`` of a sweep's file::

    search:
      kind: optuna
      space: {projector: [linear, mlp2x_gelu], trainer.align.lr: "tag(log,interval(1e-4,1e-1))"}
      n_trials: 20
      sampler: {kind: tpe, seed: 0}              # tpe, random, grid, nsga2
      objectives: [{metric: overall, direction: maximize}, {metric: visual_tokens, direction: minimize}]
      constraints: {visual_tokens: {max: 144}}   # known from shapes: points outside are never trained
      pruner: {kind: median, every_steps: 50, metric: overall}
      storage: journal                           # sqlite, a path that ends in .journal, or a URL

Keys with several values on the command line are further dimensions. ``sweep.rows`` are run first, are never pruned, and
one of them may be the baseline. Several controllers may work on one study: the same command again, while it runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from mmexp.config import Composed, Composer
from mmexp.errors import UserError, nearest
from mmexp.sweeping.search.optuna_loop import Search
from mmexp.sweeping.search.optuna_points import Points
from mmexp.sweeping.search.optuna_settings import KEY, Settings, check_metrics, read_settings
from mmexp.sweeping.search.optuna_storage import shown, storage_name
from mmexp.sweeping.search.optuna_study import make_sampler, open_study
from mmexp.sweeping.search.optuna_watch import Watch
from mmexp.sweeping.search.table import BLIND_SCALE
from mmexp.sweeping.session import Session, sweep_node
from mmexp.sweeping.spec.rows import CommandLine, Request, expand
from mmexp.sweeping.spec.space import Space, read_space
from mmexp.sweeping.spec.trials import Mistakes, Trial, freeze

SWEEP_KEYS = ("title", "source", "metric", "baseline", "seeds", "rows", "findings", "note", "search")
PLANNED = 64
"""Points of a space that ``mmexp plan`` shows all of."""
SHOWN = 5
"""First suggestions in a dry run."""


def search(session: Session) -> Path | None:
    """Search, or go on with it. Returns the sweep's folder; None for a dry run.

    Raises:
        UserError: a mistake in the node or the command line, or a study that is another one's.
        MissingResultsError: at the end, trials that failed.
    """
    node = checked_node(session)
    metric, asked = node.get("metric"), resolved_search(session.base)
    settings = read_settings(asked, None if metric is None else str(metric))
    space = read_space_of(asked, session.line, session.order.scale)
    seeds = list(session.line.seeds or node.get("seeds") or [0])
    points = Points(session, space, seeds, settings.constraints)
    check_metrics(settings.objectives, session.base.resolved())
    watch = Watch(session, settings.pruner) if settings.pruner else None
    rows = session.submit(_row_requests(node, session.line, session.order.scale))
    points.check_values()
    if session.dry_run:
        preview(session, settings, points, rows)
        return None
    name = f"{session.order.scale}/{session.line.name}"
    with open_study(settings, space, seeds, session.folder, name) as study:
        if study.number > 1:
            session.folder = session.folder / "controllers" / str(study.number)
            session.events.print(f"controller {study.number} of this study: {session.folder}", markup=False)
        first = settings.objectives[0].metric
        ledger_node = {**node, "metric": metric or first, "seeds": seeds, "rows": dict(node.get("rows") or {})}
        with session.control(ledger_node) as controller:
            Search(session, settings, points, study, controller, watch, ledger_node).run(rows)
        folder = session.finish(controller)
    return folder


def checked_node(session: Session) -> dict[str, Any]:
    """The config node ``sweep``, strict about its keys. Raises ``UserError``."""
    node = dict(session.node)
    for key in node:
        if key == "axes":
            raise UserError(f"sweep.axes: a search has none; values to choose from belong to {KEY}.space")
        if key not in SWEEP_KEYS:
            raise UserError(f"sweep.{key}: a search has no such key; {nearest(key, SWEEP_KEYS)}")
    baseline, rows = node.get("baseline"), node.get("rows") or {}
    if baseline is not None and baseline not in rows:
        raise UserError(f"sweep.baseline: no row '{baseline}'; {nearest(str(baseline), rows)}")
    return node


def resolved_search(base: Composed) -> dict[str, Any]:
    """``sweep.search`` with its interpolations filled in: sizes differ between scales."""
    found: Any = (base.resolved().get("sweep") or {}).get("search") or {}
    return dict(found)


def read_space_of(search_node: Mapping[str, Any], line: CommandLine, scale: str) -> Space:
    """Dimensions of the file and of the command line. Raises ``UserError``."""
    space, _ = read_space(search_node.get("space"), list(line.ranges.values()), scale)
    for dimension in space.dimensions:
        if dimension.name in line.keys:
            raise UserError(f"{dimension.name}: is a dimension of the search and set on the command line")
    return space


def load(scale: str, line: CommandLine) -> tuple[dict[str, Any], list[Trial]]:
    """The node and what is known before a search: its rows, and points of a small space, those that compose.

    Raises:
        UserError: a mistake in the rows or the space.
    """
    rows, points = Mistakes(), Mistakes()
    with Composer(scale).open() as composer:
        base = composer.compose(line.plain)
        node = sweep_node(base)
        space = read_space_of(resolved_search(base), line, scale)
        trials = freeze(composer, _row_requests(node, line, scale), rows)
        rows.raise_if_any()
        small = space.size is not None and space.size <= PLANNED
        overrides = [space.overrides(point) for point in space.points()] if small else []
        requests = [
            Request(row=" ".join(own), axes={}, seed=seed, overrides=(*line.for_trials, *own), selected=True)
            for seed in line.seeds or node.get("seeds") or [0]
            for own in overrides
        ]
        trials += freeze(composer, requests, points)
    return node, trials


def _row_requests(node: Mapping[str, Any], line: CommandLine, scale: str) -> list[Request]:
    """Cells of ``sweep.rows`` (and at scale lab the blind one). Raises ``UserError``."""
    if not node.get("rows"):
        return []
    return expand(node, replace(line, axes={}, ranges={}), blind=scale == BLIND_SCALE)


def preview(session: Session, settings: Settings, points: Points, rows: Sequence[Trial]) -> None:
    """The space, its size, constraints, and what would be asked for first."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space, out = points.space, session.tables
    table = Table(title="search space", title_justify="left")
    table.add_column("key")
    table.add_column("values")
    for dimension in space.dimensions:
        table.add_row(Text(dimension.name), Text(str(dimension)))
    out.print(table)
    size = "infinitely many" if space.size is None else str(space.size)
    out.print(f"{size} points; {settings.sampler.kind}, {settings.n_trials} trials", markup=False)
    for objective in settings.objectives:
        out.print(f"{objective.direction} {objective.metric}", markup=False)
    for limit in settings.constraints:
        out.print(f"subject to {limit}", markup=False)
    if settings.pruner:
        pruner = settings.pruner
        where = f"{pruner.metric} of benchmark {pruner.benchmark}"
        out.print(f"pruned ({pruner.kind}) by {where}, every {pruner.every_steps} steps", markup=False)
    out.print(f"study: {shown(storage_name(settings.storage, session.folder))}", markup=False, soft_wrap=True)
    directions: Any = [objective.direction for objective in settings.objectives]
    study = optuna.create_study(directions=directions, sampler=make_sampler(settings, 1, 0))
    trials = list(rows)
    for _ in range(min(SHOWN, settings.n_trials)):
        trial = study.ask(space.distributions())
        judged = points.judge(f"trial_{trial.number:04d}", trial.params)
        if judged.reason:
            out.print(f"infeasible: {' '.join(space.overrides(trial.params))}: {judged.reason}", markup=False)
        trials += [] if judged.reason else judged.trials
    if trials:
        session.preview(trials, at_most=settings.n_trials * len(points.seeds) + len(rows))
