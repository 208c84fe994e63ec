"""The lab's vision experts: small timm and transformers networks, pre-trained on the drawn world in memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmexp.files import MODEL_FILE, write_json
from mmexp.instantiate import instantiate
from mmexp.interfaces import Encoder, FeatureMap
from mmexp.lab.drawn import draw_batch
from mmexp.lab.fixed_steps import CHECKPOINT, Budget, train_fixed_steps
from mmexp.lab.objective import Look, Objective
from mmexp.lab.probes import ProbeBudget, examine
from mmexp.lab.rng import Rng
from mmexp.lab.world import WorldSpec

CHECK_FILE = "check.json"
CHECK_IMAGES = 256


class Expert(nn.Module):
    """An encoder and what it is trained for; the objective is not kept."""

    def __init__(self, encoder: nn.Module, objective: nn.Module) -> None:
        super().__init__()
        self.encoder, self.objective = encoder, objective


class ExpertStage:
    """Makes ``model.safetensors`` (the network's state dict, as its encoder loads it) and ``check.json``.

    Args:
        world: node ``lab.world``.
        encoder: node of the encoder that uses the weights, with ``weights: random``.
        objective: node of an ``Objective``.
        even_features: weight of a term that keeps every channel of the last two depths at mean 0 and deviation 1.
            Without it a projector without a norm learns several times slower (measured: after 300 steps absolute
            position 58 instead of 98 %).
        batch_size: images per step.
        budget: see ``Budget``.
        probes: see ``ProbeBudget``.
        seed: of everything.
        num_threads: of torch.
    """

    VERSION = 2

    def __init__(
        self,
        *,
        world: Mapping[str, int],
        encoder: Mapping[str, Any],
        objective: Mapping[str, Any],
        even_features: float,
        batch_size: int,
        budget: Mapping[str, Any],
        probes: Mapping[str, Any],
        seed: int,
        num_threads: int,
    ) -> None:
        self.spec = WorldSpec.from_config(world)
        self.encoder, self.objective = dict(encoder), dict(objective)
        self.even_features, self.batch_size = even_features, batch_size
        self.budget, self.probes = Budget(**budget), ProbeBudget(**probes)
        self.seed, self.num_threads = seed, num_threads

    def run(self, workdir: Path, runtime: Mapping[str, Any]) -> None:
        """Train, measure, save into ``workdir``."""
        from safetensors.torch import save_file

        torch.set_num_threads(self.num_threads)
        expert: Any = self._expert()
        title = str(runtime.get("title", "expert"))
        train_fixed_steps(title, expert, lambda step: self._loss(expert, step), self.budget, workdir, runtime)
        expert.objective.finish(expert.encoder.network)
        write_json(workdir / CHECK_FILE, self._check(expert))
        save_file(expert.encoder.network.state_dict(), workdir / MODEL_FILE)
        (workdir / CHECKPOINT).unlink(missing_ok=True)

    def _expert(self) -> Expert:
        torch.manual_seed(self.seed)
        encoder = instantiate(self.encoder, "encoder", expect=Encoder)
        facts = {"shape": encoder.shape(encoder.depth), "image_size": encoder.image_size, "spec": self.spec}
        return Expert(encoder, instantiate(self.objective, "objective", expect=Objective, **facts))

    def _loss(self, expert: Any, step: int) -> torch.Tensor:
        rng = Rng(self.seed, 41, step)
        drawn = draw_batch(self.spec, self.batch_size, expert.encoder.image_size, rng, held_out=False)
        maps: list[FeatureMap] = []
        loss: torch.Tensor = expert.objective.loss(looking(expert.encoder, maps), drawn, rng)
        if self.even_features:
            loss = loss + self.even_features * sum(unevenness(part.tokens) for part in maps)
        return loss

    def _check(self, expert: Any) -> dict[str, Any]:
        drawn = draw_batch(self.spec, CHECK_IMAGES, expert.encoder.image_size, Rng(self.seed, 42), held_out=True)
        maps: list[FeatureMap] = []
        found = expert.objective.check(looking(expert.encoder, maps), drawn)
        deviation = round(float(maps[0].tokens.std()), 3)
        probes = examine(expert.encoder, self.spec, self.probes, self.seed)
        return {**found, "deviation": deviation, "probes": probes}


def looking(encoder: Any, maps: list[FeatureMap]) -> Look:
    """The encoder as an objective uses it; the maps of the last two depths are put into ``maps``."""

    def look(views: torch.Tensor) -> FeatureMap:
        maps[:] = encoder(encoder.normalize(views), [encoder.depth - 1, encoder.depth])
        return maps[-1]

    return look


def unevenness(tokens: torch.Tensor) -> torch.Tensor:
    """Mean over channels of the squared mean and the squared distance of the deviation from 1; tokens (B, N, D)."""
    flat = tokens.flatten(0, 1)
    return (flat.mean(0) ** 2 + (flat.std(0) - 1) ** 2).mean()
