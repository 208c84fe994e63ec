"""What a stage will see of each dataset: expected samples and epochs, from the files where they are on disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mmexp.data.balance import Balance
from mmexp.errors import UserError
from mmexp.instantiate import instantiate
from mmexp.interfaces import Source
from mmexp.stages.graph import build_graph, replace_references
from mmexp.stages.store import Store


@dataclass(frozen=True, slots=True)
class DatasetPlan:
    """Of one dataset in one stage; ``size`` is None, and so is what depends on it, where a file is missing."""

    size: int | None
    samples: float | None

    @property
    def epochs(self) -> float | None:
        return self.samples / self.size if self.samples is not None and self.size else None


def plan_datasets(config: Mapping[str, Any]) -> dict[str, dict[str, DatasetPlan]]:
    """Stage -> dataset -> expected figures, for the datasets that the stage's balance draws from.

    Raises:
        UserError: the balance names an unknown dataset or task, or a dataset on disk cannot be read.
    """
    store = Store.from_config(config)
    found = {name: store.find(key) for name, key in build_graph(config).keys.items()}

    def folder(name: str, sub: str) -> str:
        return f"{found.get(name) or f'stage:{name}'}{sub}"

    stages = {name: node for name, node in config["recipe"]["stages"].items() if "data" in node}
    return {name: _stage(replace_references(node, folder)) for name, node in stages.items()}


def check_balance(stage: str, data: Mapping[str, Any]) -> Balance:
    """The balance of a stage's ``data``. Raises ``UserError`` where it names an unknown dataset or task."""
    balance: Balance = instantiate(data["balance"], f"recipe.stages.{stage}.data.balance", expect=Balance)
    balance.needed(list(data["datasets"]))
    return balance


def _stage(node: Mapping[str, Any]) -> dict[str, DatasetPlan]:
    data = node["data"]
    balance = instantiate(data["balance"], "balance", expect=Balance)
    sizes = {name: _size(name, data["datasets"][name]) for name in balance.needed(list(data["datasets"]))}
    known = {name: size for name, size in sizes.items() if size is not None}
    if len(known) < len(sizes):
        return {name: DatasetPlan(size, None) for name, size in sizes.items()}
    total = int(node["schedule"]["steps"]) * int(data["batching"]["batch_size"])
    shares = balance.shares(known)
    return {name: DatasetPlan(size, total * shares[name]) for name, size in known.items()}


def _size(name: str, node: Mapping[str, Any]) -> int | None:
    """Samples of a dataset, None where its annotations are not on disk."""
    if not Path(str(node.get("annotations") or node.get("folder"))).exists():
        return None
    return len(instantiate(node, f"data.datasets.{name}", expect=Source, name=name))


def print_datasets(row: str, stages: Mapping[str, Mapping[str, DatasetPlan]], console: Console) -> None:
    """A table of one row; a line for the stages whose data are missing."""
    table = Table(title=f"expected samples of each dataset: {row}")
    for column in ("stage", "dataset", "size", "samples", "epochs"):
        table.add_column(column, justify="left" if column in ("stage", "dataset") else "right", overflow="fold")
    for stage, datasets in stages.items():
        missing = [name for name, figures in datasets.items() if figures.size is None]
        if missing:
            shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            console.print(
                f"{row}, {stage}: {len(missing)} of {len(datasets)} datasets are not on disk ({shown}); "
                "expected samples are not known",
                soft_wrap=True,
                markup=False,
                highlight=False,
            )
            continue
        for name, figures in datasets.items():
            table.add_row(stage, name, f"{figures.size:,}", f"{figures.samples:,.0f}", f"{figures.epochs:.2f}")
    if table.rows:
        console.print(table)


def print_all(rows: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """The tables of several configs, each of the same data once: rows that differ elsewhere are named together."""
    groups: list[tuple[list[str], dict[str, dict[str, DatasetPlan]]]] = []
    for row, config in rows.items():
        try:
            figures = plan_datasets(config)
        except UserError as error:
            raise UserError(f"{row}: {error}") from error
        same = next((names for names, known in groups if known == figures), None)
        if same is None:
            groups.append(([row], figures))
        else:
            same.append(row)
    for names, figures in groups:
        print_datasets(", ".join(names), figures, console)
