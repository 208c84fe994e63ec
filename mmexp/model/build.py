"""Build the composed model, save what a stage trained, load what its ancestors trained."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mmexp.errors import UserError
from mmexp.files import LINEAGE_FILE, WEIGHTS_FILE
from mmexp.interfaces import Grid, ImageSize, Resolution
from mmexp.model.mllm import Mllm

EXPERTS = "encoders."

InitFrom = str | Path | Sequence[str] | None
"""Folder of a finished stage, or of several."""


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


def load_model(spec: Mapping[str, Any], init_from: InitFrom) -> Mllm:
    """The model with its parts' weights, overlaid with what ``init_from`` trained, see ``load_trained``."""
    model = Mllm(spec, load=True)
    load_trained(model, init_from)
    return model


def token_counter(model: Mllm) -> VisualTokenCounter:
    vision = model.vision
    return VisualTokenCounter(vision.resolution, vision.tokens_per_view, vision.grid)


def no_visual_tokens(_size: ImageSize) -> int:
    """Counter of a model without vision side."""
    return 0


def save_trained(model: Mllm, workdir: Path, init_from: InitFrom, names: Iterable[str]) -> None:
    """Write the named parameters (as ``named_trainables`` names them) and which stage they build on."""
    wanted = set(names)
    state = {
        name: parameter.detach().cpu().contiguous() for name, parameter in model.named_trainables() if name in wanted
    }
    save_file(state, workdir / WEIGHTS_FILE)
    several = isinstance(init_from, list | tuple)
    parents = [Path(parent).name for parent in _listed(init_from)]
    (workdir / LINEAGE_FILE).write_text(json.dumps({"init_from": parents if several else next(iter(parents), None)}))


def load_trained(model: Mllm, init_from: InitFrom) -> None:
    """Overlay the weights of finished stages, their ancestors' first. Ancestors lie beside them in the store.

    One stage: the model continues with all that it trained. A whole part that this model lacks (an encoder that it does
    not use, the vision side of a blind one) is left out. Several stages, as a list: experts that were trained apart.
    Only their encoders are loaded, not the connector that each had for itself, nor an LLM.

    Raises:
        UserError: weights of a part that the model has, but with other parameters or shapes; of several stages, one
            that trained none of this model's encoders, or two that trained the same one.
    """
    parameters = dict(model.named_trainables())
    parts = {part_of(name) for name in parameters}
    several = isinstance(init_from, list | tuple)
    owners: dict[str, str] = {}
    with torch.no_grad():
        for parent in _listed(init_from):
            taken = set()
            for folder, experts_only in _history(Path(parent), several):
                for name, value in load_file(folder / WEIGHTS_FILE).items():
                    part = part_of(name)
                    if part not in parts or (experts_only and not part.startswith(EXPERTS)):
                        continue
                    _copy(parameters, name, value, folder)
                    taken.add(part)
            if several:
                _check_owners(owners, taken, Path(parent).name)


def part_of(name: str) -> str:
    """``encoders.clip`` for an encoder's parameter, else the first component."""
    components = name.split(".")
    return ".".join(components[: 2 if components[0] == "encoders" else 1])


def lineage(init_from: InitFrom) -> list[Path]:
    """The stages and their ancestors, oldest first, each once."""
    folders = [folder for parent in _listed(init_from) for folder, _ in _history(Path(parent), False)]
    return list(dict.fromkeys(folders))


def _listed(init_from: InitFrom) -> list[str | Path]:
    if init_from is None:
        return []
    return [init_from] if isinstance(init_from, str | Path) else list(init_from)


def _history(stage: Path, experts_only: bool) -> Iterator[tuple[Path, bool]]:
    """The stage's ancestors, oldest first, then itself; whether only encoders are taken from it."""
    parents = json.loads((stage / LINEAGE_FILE).read_text())["init_from"]
    several = isinstance(parents, list)
    for parent in _listed(parents):
        yield from _history(stage.parent / parent, experts_only or several)
    yield stage, experts_only


def _copy(parameters: Mapping[str, torch.nn.Parameter], name: str, value: torch.Tensor, folder: Path) -> None:
    if name not in parameters or parameters[name].shape != value.shape:
        have = tuple(parameters[name].shape) if name in parameters else "no such parameter"
        raise UserError(f"init_from: {folder.name} trained {name} {tuple(value.shape)}; this model has {have}")
    parameters[name].copy_(value)


def _check_owners(owners: dict[str, str], taken: set[str], stage: str) -> None:
    if not taken:
        raise UserError(
            f"init_from: {stage} trained no encoder of this model; of several stages only encoders are loaded"
        )
    for part in sorted(taken):
        if part in owners:
            raise UserError(f"init_from: {owners[part]} and {stage} both trained {part}; keep one of them")
        owners[part] = stage
