"""Batches for the experts: drawn scenes, and what each token of a grid shows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from mmexp.lab.font import WORDS
from mmexp.lab.rng import Rng
from mmexp.lab.world import COLORS, SHAPES, SIZES, Object, Scene, WorldSpec, draw, scenes
from mmexp.model.resolution.resize import Resize

NOTHING = -1
"""Label of what has no label; never counted in a loss or a score."""
OBJECT_VALUES = {"color": tuple(COLORS), "shape": SHAPES, "size": SIZES}
SIGN_VALUES = {"tens": tuple("0123456789"), "ones": tuple("0123456789"), "word": tuple(WORDS)}


@dataclass(frozen=True, slots=True)
class Drawn:
    """B scenes, as an encoder sees them and as they are."""

    spec: WorldSpec
    scenes: list[Scene]
    views: torch.Tensor  # (B, 3, H, W) uint8, at the encoder's size
    masks: list[np.ndarray]  # (objects, side, side) bool, at the world's size

    def owners(self, grid: tuple[int, int]) -> torch.Tensor:
        """(B, N): number of the object that covers most of a token; as many as the most objects where none does."""
        rows, columns = grid
        height, width = self.spec.image_size // rows, self.spec.image_size // columns
        most = max(len(masks) for masks in self.masks)
        found = np.full((len(self.masks), rows * columns), most)
        for place, masks in enumerate(self.masks):
            cover = masks.reshape(len(masks), rows, height, columns, width).sum(axis=(2, 4)).reshape(len(masks), -1)
            found[place] = np.where(cover.any(axis=0), cover.argmax(axis=0), most)
        return torch.from_numpy(found)

    def object_labels(self, name: str) -> torch.Tensor:
        """(B, most objects + 1): number of each object's color, shape, size or cell; the rest is ``NOTHING``."""
        most = max(len(scene.objects) for scene in self.scenes)
        rows = [[self._label(item, name) for item in scene.objects] for scene in self.scenes]
        return torch.tensor([row + [NOTHING] * (most + 1 - len(row)) for row in rows])

    def token_labels(self, name: str, grid: tuple[int, int]) -> torch.Tensor:
        """(B, N): that of the object that covers most of a token."""
        return self.object_labels(name).gather(1, self.owners(grid))

    def sign_labels(self, name: str) -> torch.Tensor:
        """(B,): tens or ones of numbers, number of words."""
        return torch.tensor([_sign_label(scene, name) for scene in self.scenes])

    def _label(self, item: Object, name: str) -> int:
        if name == "cell":
            return int(item.row) * self.spec.grid + int(item.column)
        return OBJECT_VALUES[name].index(getattr(item, name))


def draw_batch(spec: WorldSpec, size: int, image_size: int, rng: Rng, *, held_out: bool) -> Drawn:
    """New scenes of one side of the split, resized as ``resolution=resize`` does."""
    from PIL import Image

    resize = Resize(image_size=image_size, mean=(0.5, 0.5, 0.5))
    source = scenes(spec, rng, held_out=held_out)
    chosen = [next(source) for _ in range(size)]
    drawn = [draw(spec, scene, rng) for scene in chosen]
    views = np.concatenate([resize.views(Image.fromarray(pixels)) for pixels, _ in drawn])
    return Drawn(spec, chosen, torch.from_numpy(views), [masks for _, masks in drawn])


def labelled_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy over what has a label; logits (..., classes), labels (...); 0 where nothing has one."""
    total = functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=NOTHING, reduction="sum")
    return total / (labels != NOTHING).sum().clamp(min=1)


def percent_right(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Of what has a label."""
    has = labels != NOTHING
    return round(100 * float((logits.argmax(-1) == labels)[has].float().mean()), 1)


def _sign_label(scene: Scene, name: str) -> int:
    text = scene.sign.text if scene.sign else ""
    if text.isdigit():
        return {"tens": int(text[0]), "ones": int(text[1]), "word": NOTHING}[name]
    return SIGN_VALUES["word"].index(text) if text and name == "word" else NOTHING


def shapes_counted(drawn: Sequence[Scene]) -> torch.Tensor:
    """(B, shapes): how many objects have each shape."""
    return torch.tensor([[sum(item.shape == shape for item in scene.objects) for shape in SHAPES] for scene in drawn])
