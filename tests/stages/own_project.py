"""A user's project in a folder of its own: a stage, a part with a helper, captions and images; nothing takes time."""

import json
from pathlib import Path

OWN = {
    "own_stage.py": """\
from pathlib import Path

from tests.fakes import Count, journal


class Train(Count):
    VERSION = 1

    def __init__(self, *, projector, data, seed, value):
        super().__init__(value=value, seed=seed, steps=1, parents=[], trouble=None)
""",
    "own_parts.py": """\
from own_helper import half


class Projector:
    def __init__(self, width):
        self.width = half(width)
""",
    "own_helper.py": """\
def half(number):
    return number // 2
""",
    "own_unrelated.py": "number = 1\n",
    "experiments/own.yaml": """\
# @package _global_
# Own parts.
defaults:
  - override /recipe: own
  - override /logger: none
evaluation:
  _target_: tests.fakes.ScoreModel
allow_targets: ["tests.", "own_"]
""",
    "conf/recipe/own.yaml": """\
# One own stage before the evaluation.
last: train
use_images: true
model: ${model}
annotations: data/captions.json
images: data/images
part: own_parts.Projector
value: 1
stages:
  train:
    _target_: own_stage.Train
    projector: {_target_: "${recipe.part}", width: 4}
    data:
      datasets:
        captions:
          _target_: mmexp.data.sources.llava_json.LlavaJson
          annotations: ${recipe.annotations}
          image_folder: ${recipe.images}
    seed: ${seed}
    value: ${recipe.value}
    runtime: {seconds: 0.0}
""",
}


def write_project(root: Path) -> Path:
    """The project, with two captions of images in ``data/images/coco`` and another dataset beside these."""
    for name, text in OWN.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name in ("coco/1.jpg", "coco/2.jpg", "gqa/7.jpg"):
        image = root / "data" / "images" / name
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(b"pixels")
    write_captions(root / "data" / "captions.json", 2)
    return root


def write_captions(path: Path, count: int) -> None:
    path.write_text(json.dumps([{"id": n, "image": f"coco/{n % 2 + 1}.jpg"} for n in range(count)]))
