"""What can be read from frozen features: linear and MLP probes on an expert's depths.

A probe gets the tokens of one cell (colour, shape, size and cell of an object), those of the sign (tens, ones, word),
or the mean of all tokens (how many objects have each shape). Scenes of the test were trained on neither by the expert
nor by the probe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from mmexp.errors import UserError
from mmexp.interfaces import FeatureMap
from mmexp.lab.drawn import NOTHING, OBJECT_VALUES, SIGN_VALUES, Drawn, draw_batch, labelled_loss, shapes_counted
from mmexp.lab.rng import Rng
from mmexp.lab.world import SHAPES, SIGN_CELLS, WorldSpec
from mmexp.model.maps import to_map

TOKENS_PER_CELL = 2
"""Tokens along a cell's side that a probe sees; maps of another size are resampled."""
EXTRACT_BATCH = 250
Labels = dict[str, torch.Tensor]
"""Target -> (rows,) or, where a target is several questions, (rows, questions)."""
Accuracies = dict[str, dict[str, float]]
"""Target -> ``linear`` and ``mlp`` in percent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeBudget:
    """How probes are trained.

    Args:
        depths: of the encoder, as its taps count.
        train, test: images.
        steps, batch_size, lr: of AdamW, with a cosine to 0.
        hidden: width of the MLP's one hidden layer.
    """

    depths: Sequence[int]
    train: int
    test: int
    steps: int
    batch_size: int
    lr: float
    hidden: int


def examine(encoder: Any, spec: WorldSpec, budget: ProbeBudget, seed: int) -> dict[str, Accuracies]:
    """Depth (as text) -> accuracies; the same numbers for the same encoder, whenever asked."""
    for depth in budget.depths:
        if not 0 <= depth <= encoder.depth:
            raise UserError(f"probes.depths: {depth} is not in this encoder: it has 0 (stem) to {encoder.depth}")
    train = draw_batch(spec, budget.train, encoder.image_size, Rng(seed, 43), held_out=False)
    test = draw_batch(spec, budget.test, encoder.image_size, Rng(seed, 44), held_out=True)
    seen, unseen = (_maps(encoder, drawn, budget.depths) for drawn in (train, test))
    found: dict[str, Accuracies] = {}
    for depth, before, after in zip(budget.depths, seen, unseen, strict=True):
        found[str(depth)] = {}
        for rows in (_objects, _signs, _counts):
            found[str(depth)] |= probe(*rows(before, train), *rows(after, test), budget, seed)
    return found


def chance(spec: WorldSpec, budget: ProbeBudget, seed: int) -> dict[str, float]:
    """Target -> percent of the test that the commonest answer gets."""
    drawn = draw_batch(spec, budget.test, spec.image_size, Rng(seed, 44), held_out=True)
    nothing = torch.zeros(len(drawn.scenes), 1, spec.grid * TOKENS_PER_CELL, spec.grid * TOKENS_PER_CELL)
    found = {}
    for rows in (_objects, _signs, _counts):
        for name, labels in rows(nothing, drawn)[1].items():
            columns = labels.view(len(labels), -1).t()
            shares = [float((column == column[column != NOTHING].mode().values).sum()) for column in columns]
            found[name] = round(100 * sum(shares) / int((labels != NOTHING).sum()), 1)
    return found


def probe(
    train: torch.Tensor, train_labels: Labels, test: torch.Tensor, test_labels: Labels, budget: ProbeBudget, seed: int
) -> Accuracies:
    """Train both probes for all targets at once; features (rows, dim) are brought to mean 0 and deviation 1."""
    mean, deviation = train.mean(0), train.std(0) + 1e-6
    train, test = (train - mean) / deviation, (test - mean) / deviation
    sizes = {name: _classes(name) * labels.view(len(labels), -1).shape[1] for name, labels in train_labels.items()}
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        probes = {"linear": _Heads(train.shape[1], None, sizes), "mlp": _Heads(train.shape[1], budget.hidden, sizes)}
    both = nn.ModuleDict(probes)
    optimizer = torch.optim.AdamW(both.parameters(), lr=budget.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, budget.steps)
    for _ in range(budget.steps):
        rows = torch.randint(len(train), (budget.batch_size,), generator=generator)
        losses = [
            labelled_loss(logits, train_labels[name][rows])
            for heads in probes.values()
            for name, logits in heads(train[rows], train_labels).items()
        ]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        said = {kind: heads(test, test_labels) for kind, heads in probes.items()}
    return {
        name: {kind: _percent(logits[name], labels) for kind, logits in said.items()}
        for name, labels in test_labels.items()
    }


class _Heads(nn.Module):
    """One linear layer per target, on the features or on a hidden layer that they share."""

    def __init__(self, dim: int, hidden: int | None, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.body = nn.Identity() if hidden is None else nn.Sequential(nn.Linear(dim, hidden), nn.GELU())
        self.heads = nn.ModuleDict({name: nn.Linear(hidden or dim, size) for name, size in sizes.items()})

    def forward(self, features: torch.Tensor, labels: Labels) -> dict[str, torch.Tensor]:
        hidden = self.body(features)
        return {
            name: head(hidden).view(len(features), *labels[name].shape[1:], _classes(name))
            for name, head in self.heads.items()
        }


def _percent(logits: torch.Tensor, labels: torch.Tensor) -> float:
    has = labels != NOTHING
    return round(100 * float((logits.argmax(-1) == labels)[has].float().mean()), 1)


def _classes(name: str) -> int:
    known = {**OBJECT_VALUES, **SIGN_VALUES}
    return len(known[name]) if name in known else {"cell": 81, "count": 10}[name]


@torch.no_grad()
def _maps(encoder: Any, drawn: Drawn, depths: Sequence[int]) -> list[torch.Tensor]:
    """Per depth (B, D, side, side)."""
    side = drawn.spec.grid * TOKENS_PER_CELL
    parts: list[list[torch.Tensor]] = [[] for _ in depths]
    for views in drawn.views.split(EXTRACT_BATCH):
        for part, found in zip(parts, encoder(encoder.normalize(views), list(depths)), strict=True):
            part.append(_resampled(found, side))
    return [torch.cat(part) for part in parts]


def _resampled(found: FeatureMap, side: int) -> torch.Tensor:
    assert found.grid is not None
    whole = to_map(found.tokens, found.grid)
    return whole if found.grid == (side, side) else functional.interpolate(whole, (side, side), mode="area")


def _cells(maps: torch.Tensor, image: int, row: int, column: int, width: int) -> torch.Tensor:
    top, left = row * TOKENS_PER_CELL, column * TOKENS_PER_CELL
    return maps[image, :, top : top + TOKENS_PER_CELL, left : left + width * TOKENS_PER_CELL].flatten()


def _objects(maps: torch.Tensor, drawn: Drawn) -> tuple[torch.Tensor, Labels]:
    rows = [
        _cells(maps, image, item.row, item.column, 1)
        for image, scene in enumerate(drawn.scenes)
        for item in scene.objects
    ]
    labels = {name: drawn.object_labels(name) for name in (*OBJECT_VALUES, "cell")}
    return torch.stack(rows), {name: value[value != NOTHING] for name, value in labels.items()}


def _signs(maps: torch.Tensor, drawn: Drawn) -> tuple[torch.Tensor, Labels]:
    signs = [(image, scene.sign) for image, scene in enumerate(drawn.scenes) if scene.sign]
    rows = [_cells(maps, image, sign.row, sign.column, SIGN_CELLS) for image, sign in signs]
    images = torch.tensor([image for image, _ in signs])
    return torch.stack(rows), {name: drawn.sign_labels(name)[images] for name in SIGN_VALUES}


def _counts(maps: torch.Tensor, drawn: Drawn) -> tuple[torch.Tensor, Labels]:
    counted = shapes_counted(drawn.scenes)
    assert counted.shape[1] == len(SHAPES)
    return maps.mean((2, 3)), {"count": counted}
