"""Build the composed model, save what a stage trained, load what its ancestors trained."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mmexp.errors import UserError
from mmexp.interfaces import Grid, ImageSize, Resolution
from mmexp.model.mllm import Mllm

WEIGHTS = "weights.safetensors"
LINEAGE = "init_from.json"


@dataclass(frozen=True, slots=True)
class VisualTokenCounter:
    """The one fact that flows back to the data side: how many visual tokens an image becomes. Pickles small."""

    resolution: Resolution
    tokens_per_view: int
    grid: Grid | None

    def __call__(self, size: ImageSize) -> int:
        return self.resolution.num_tokens(size, self.tokens_per_view, self.grid)


def build_meta_model(spec: Mapping[str, Any]) -> Mllm:
    """The model without memory or weights: for validation, planning and shape facts.

    Raises:
        UserError: parts that do not fit together.
    """
    with torch.device("meta"):
        return Mllm(spec, load=False)


def load_model(spec: Mapping[str, Any], init_from: str | None) -> Mllm:
    """The model with its parts' weights, overlaid with what the stage ``init_from`` and its ancestors trained."""
    model = Mllm(spec, load=True)
    if init_from is not None:
        load_trained(model, Path(init_from))
    return model


def token_counter(model: Mllm) -> VisualTokenCounter:
    sight = model.sight
    return VisualTokenCounter(sight.resolution, sight.tokens_per_view, sight.grid)


def no_visual_tokens(_size: ImageSize) -> int:
    """Counter of a model without vision side."""
    return 0


def save_trained(model: Mllm, workdir: Path, init_from: str | None, names: Iterable[str]) -> None:
    """Write the named parameters (as ``named_trainables`` names them) and which stage they build on."""
    wanted = set(names)
    state = {
        name: parameter.detach().cpu().contiguous() for name, parameter in model.named_trainables() if name in wanted
    }
    save_file(state, workdir / WEIGHTS)
    lineage = {"init_from": Path(init_from).name if init_from else None}
    (workdir / LINEAGE).write_text(json.dumps(lineage))


def load_trained(model: Mllm, stage: Path) -> None:
    """Overlay the weights of a finished stage, its ancestors' first. Ancestors lie beside it in the store.

    A whole part that this model lacks (an encoder that it does not use, the vision side of a blind one) is left out.

    Raises:
        UserError: weights of a part that the model has, but with other parameters or shapes.
    """
    parameters = dict(model.named_trainables())
    parts = {part_of(name) for name in parameters}
    with torch.no_grad():
        for folder in lineage(stage):
            for name, value in load_file(folder / WEIGHTS).items():
                if part_of(name) not in parts:
                    continue
                if name not in parameters or parameters[name].shape != value.shape:
                    have = tuple(parameters[name].shape) if name in parameters else "no such parameter"
                    raise UserError(
                        f"init_from: {folder.name} trained {name} {tuple(value.shape)}; this model has {have}"
                    )
                parameters[name].copy_(value)


def part_of(name: str) -> str:
    """``encoders.clip`` for an encoder's parameter, else the first component."""
    components = name.split(".")
    return ".".join(components[: 2 if components[0] == "encoders" else 1])


def lineage(stage: Path) -> list[Path]:
    """The stage and its ancestors, oldest first."""
    folders = [stage]
    while (parent := json.loads((folders[0] / LINEAGE).read_text())["init_from"]) is not None:
        folders.insert(0, stage.parent / parent)
    return folders
