"""Small datasets and parts for the tests of this folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmexp.data.batching import Batching
from mmexp.data.template import Template
from mmexp.interfaces import Turn

CONF = Path(__file__).parents[2] / "conf"
NUM_VISUAL = 4


def template(name: str, **changes: Any) -> Template:
    """A shipped template, composed by Hydra."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(CONF), version_base=None):
        node: Any = OmegaConf.to_container(compose(f"template/{name}").template, resolve=True)
    node.pop("_target_")
    return Template(**{**node, **changes})


def turns(*pairs: tuple[str, str], **changes: Any) -> list[Turn]:
    return [Turn(question=question, answer=answer, **changes) for question, answer in pairs]


def batching(**changes: Any) -> Batching:
    values: dict[str, Any] = {
        "batch_size": 4,
        "packing": "none",
        "row_length": None,
        "max_length": 256,
        "group_by_modality_length": False,
        "max_bad_samples": 0,
    }
    return Batching(**{**values, **changes})


def llava_record(number: int, questions: int = 2, image: bool = True) -> dict[str, Any]:
    """Answers name the record, so that a batch tells whose it is."""
    entries: list[dict[str, str]] = []
    for place in range(questions):
        marker = "<image>\n" if image and place == 0 else ""
        entries.append({"from": "human", "value": f"{marker}is there a red shape {'no ' * place}?"})
        entries.append({"from": "gpt", "value": f"{number}"})
    return {"id": str(number), "conversations": entries} | ({"image": f"{number}.png"} if image else {})


def write_dataset(folder: Path, records: list[dict[str, Any]], name: str = "data.jsonl") -> Path:
    """Records as JSON lines, and an 8 x 8 image of one colour for each record that names one."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for record in records:
        if "image" in record:
            pixels = np.full((8, 8, 3), int(record["id"]) % 256, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / record["image"])
    path = folder / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
