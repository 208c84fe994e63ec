"""The lab's vision experts: small timm networks, pre-trained on the drawn world in memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mmexp.instantiate import instantiate
from mmexp.lab.dice import Dice
from mmexp.lab.fixed_steps import CHECKPOINT, Budget, train_fixed_steps
from mmexp.lab.world import Scene, WorldSpec, draw_image, scenes
from mmexp.recipe.files import write_json

WEIGHTS_FILE = "model.safetensors"
CHECK_FILE = "check.json"


class Expert(nn.Module):
    """A network and what it is trained for; the objective is not kept."""

    def __init__(self, network: nn.Module, objective: nn.Module) -> None:
        super().__init__()
        self.network, self.objective = network, objective


class ExpertStage:
    """Makes ``model.safetensors`` (timm's state dict) and ``check.json``.

    Args:
        world: node ``lab.world``.
        network: ``model_name``, ``model_args``, ``image_size``, ``mean``, ``std``, as the encoder that uses it.
        objective: node of a module with ``loss(pooled, scenes, dice)`` and ``check(pooled, scenes)``.
        even_features: weight of a term that keeps every channel of the last two depths at mean 0 and deviation 1.
            Without it a projector without a norm learns several times slower (measured: after 300 steps absolute
            position 58 instead of 98 %).
        batch_size: images per step.
        budget: see ``Budget``.
        seed: of everything.
        num_threads: of torch.
    """

    VERSION = 1

    def __init__(
        self,
        *,
        world: Mapping[str, int],
        network: Mapping[str, Any],
        objective: Mapping[str, Any],
        even_features: float,
        batch_size: int,
        budget: Mapping[str, Any],
        seed: int,
        num_threads: int,
    ) -> None:
        self.spec = WorldSpec.from_config(world)
        self.network, self.objective = dict(network), dict(objective)
        self.even_features, self.batch_size = even_features, batch_size
        self.budget = Budget(**budget)
        self.seed, self.num_threads = seed, num_threads

    def run(self, workdir: Path, runtime: Mapping[str, Any]) -> None:
        """Train, measure, save into ``workdir``."""
        from safetensors.torch import save_file

        torch.set_num_threads(self.num_threads)
        expert = self._expert()
        title = str(runtime.get("title", "expert"))
        train_fixed_steps(title, expert, lambda step: self._loss(expert, step), self.budget, workdir, runtime)
        write_json(workdir / CHECK_FILE, self._check(expert))
        save_file(expert.network.state_dict(), workdir / WEIGHTS_FILE)
        (workdir / CHECKPOINT).unlink(missing_ok=True)

    def _expert(self) -> Expert:
        from mmexp.encoder.timm_encoder import create_network

        torch.manual_seed(self.seed)
        network = create_network(
            self.network["model_name"], dict(self.network["model_args"]), self.network["image_size"]
        )
        return Expert(network, instantiate(self.objective, "objective", dim=network.num_features))

    def _loss(self, expert: Any, step: int) -> torch.Tensor:
        dice = Dice(self.seed, 41, step)
        drawn, pixels = self._batch(dice, self.batch_size, held_out=False)
        pooled, depths = self._features(expert.network, pixels)
        loss: torch.Tensor = expert.objective.loss(pooled, drawn, dice)
        if self.even_features:
            loss = loss + self.even_features * sum(unevenness(tokens) for tokens in depths)
        return loss

    def _features(self, network: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Pooled features (B, D) and the tokens (B, N, D) of the last two depths."""
        final, depths = network.forward_intermediates(pixels, indices=2, norm=False, output_fmt="NLC")
        return network.forward_head(final, pre_logits=True), depths

    def _batch(self, dice: Dice, size: int, *, held_out: bool) -> tuple[list[Scene], torch.Tensor]:
        """New scenes and their normalised pixels (B, 3, H, W), resized as ``resolution=resize`` does."""
        from PIL import Image

        from mmexp.resolution.resize import Resize

        resize = Resize(image_size=self.network["image_size"], mean=self.network["mean"])
        source = scenes(self.spec, dice, held_out=held_out)
        drawn = [next(source) for _ in range(size)]
        views = [resize.views(Image.fromarray(draw_image(self.spec, scene, dice))) for scene in drawn]
        return drawn, normalized(np.concatenate(views), self.network["mean"], self.network["std"])

    @torch.no_grad()
    def _check(self, expert: Any) -> dict[str, float]:
        drawn, pixels = self._batch(Dice(self.seed, 42), 256, held_out=True)
        pooled, depths = self._features(expert.network, pixels)
        deviation = round(float(depths[0].std()), 3)
        return {**expert.objective.check(pooled, drawn), "deviation": deviation}


def normalized(views: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """(B, 3, H, W) uint8 -> float with the channels' mean and deviation."""
    shape = (1, 3, 1, 1)
    pixels = torch.from_numpy(views).float() / 255
    return (pixels - torch.tensor(list(mean)).view(shape)) / torch.tensor(list(std)).view(shape)


def unevenness(tokens: torch.Tensor) -> torch.Tensor:
    """Mean over channels of the squared mean and the squared distance of the deviation from 1; tokens (B, N, D)."""
    flat = tokens.flatten(0, 1)
    return (flat.mean(0) ** 2 + (flat.std(0) - 1) ** 2).mean()
