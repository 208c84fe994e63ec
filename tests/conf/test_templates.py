"""Honeybee's wordings: written once in their files, and composed to the same texts as ever."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mmexp.config import Composer

GOLDEN: dict[str, str] = json.loads((Path(__file__).parent / "golden" / "templates.json").read_text())
"""``scale/option`` -> hash of the composed node. A text that changes on purpose changes its hash here: every stage
that was trained with it is another stage then."""


def composed(scale: str) -> dict[str, Any]:
    options = [name.partition("/")[2] for name in GOLDEN if name.startswith(f"{scale}/")]
    with Composer(scale).open() as composer:
        return {
            option: OmegaConf.to_container(composer.compose([f"template={option}"]).config.template, resolve=True)
            for option in options
        }


@pytest.mark.parametrize("scale", ["lab", "paper"])
def test_honeybees_wordings_are_the_same_to_the_letter(scale: str) -> None:
    found = {
        f"{scale}/{option}": hashlib.sha256(json.dumps(node).encode()).hexdigest()[:16]
        for option, node in composed(scale).items()
    }
    assert found == {name: digest for name, digest in GOLDEN.items() if name.startswith(f"{scale}/")}


def test_no_wordings_are_written_twice_in_a_file() -> None:
    """Datasets that are asked in the same words share them by a YAML anchor."""
    root = Path(__file__).parent.parent.parent / "conf" / "scale"
    files = sorted(root.glob("*/template/honeybee*.yaml"))
    assert len(files) == 18
    for path in files:
        _, _, body = path.read_text().partition("wordings:\n")
        blocks = [block.partition(":")[2] for block in body.replace("\n    ", " ").splitlines() if "reply" in block]
        assert len(blocks) == len(set(blocks)), path
