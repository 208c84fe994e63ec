"""What a config is, before anything is launched: parameters by part, what each stage trains, visual tokens.

Built on meta tensors from the real configuration: no weights, no GPU, no hub.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from mmexp.planning.meta import meta_model
from mmexp.planning.validate import visual_tokens
from mmexp.statistics.numbers import count

CONNECTOR = ("feature_layers", "fusion", "projector", "reduction", "assembler")
"""Parts of the vision side other than encoders."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Figures of one config."""

    row: str
    parameters: dict[str, int]
    """Part -> number of parameters; encoders by name."""
    trained: dict[str, int]
    """Stage -> parameters that it trains."""
    steps: dict[str, int]
    """Stage -> optimizer steps."""
    samples: dict[str, int]
    """Stage -> samples that it sees (steps times global batch)."""
    visual_tokens: int
    """Of the image that has most of them (one that fills all tiles; with a single view all images have the same)."""


def plan(row: str, config: Mapping[str, Any]) -> Plan:
    """Figures of one resolved config. Raises ``UserError`` where it cannot be built."""
    from mmexp.training.parameters import freeze_and_group, trained_names

    spec = config["evaluation"]["model"]
    trained, steps, samples = {}, {}, {}
    for name, stage in config["recipe"]["stages"].items():
        if "trainable" not in stage:
            continue
        model = meta_model(stage["model"])
        freeze_and_group(model, stage["trainable"], 0.0)
        sizes = sizes_of(model)
        trained[name] = sum(sizes[parameter] for parameter in trained_names(model))
        steps[name] = int(stage["schedule"]["steps"])
        samples[name] = steps[name] * int(stage["data"]["batching"]["batch_size"])
    model = meta_model(spec)
    return Plan(
        row=row,
        parameters=parameters_by_part(sizes_of(model)),
        trained=trained,
        steps=steps,
        samples=samples,
        visual_tokens=visual_tokens(model),
    )


def sizes_of(model: Any) -> dict[str, int]:
    """Name -> number of values of each parameter."""
    return {name: parameter.numel() for name, parameter in model.named_trainables()}


def parameters_by_part(sizes: Mapping[str, int]) -> dict[str, int]:
    """Sum by the first component of the name, encoders by their own name."""
    parts: dict[str, int] = {}
    for name, size in sizes.items():
        first, second, *_ = name.split(".")
        part = second if first == "encoders" else first
        parts[part] = parts.get(part, 0) + size
    return parts


def print_plans(plans: list[Plan], console: Console) -> None:
    """A table that fits a terminal; what a stage trains and sees stands in a line of its own."""
    table = Table(title="parameters, what each stage trains, samples, visual tokens of an image", show_lines=True)
    table.add_column("row", overflow="fold")
    for column in ("encoders", "connector", "llm", "trained", "samples", "visual"):
        table.add_column(column, justify="right", no_wrap=True)
    for figures in plans:
        parts = dict(figures.parameters)
        llm = parts.pop("llm", 0)
        connector = sum(parts.pop(part, 0) for part in CONNECTOR)
        table.add_row(
            figures.row,
            count(sum(parts.values())),
            count(connector),
            count(llm),
            "\n".join(f"{stage} {count(number)}" for stage, number in figures.trained.items()),
            "\n".join(count(number) for number in figures.samples.values()),
            str(figures.visual_tokens),
        )
    console.print(table)
