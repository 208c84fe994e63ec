"""Every YAML that ships is composed and its parts are built: a typo in a file nobody runs is found here.

Sweeps have files of their own, one for each scale, so that two workers share them.
"""

from pathlib import Path

import pytest

from mmexp.config import SCALES, Composer, config_root, groups, options
from mmexp.config.folders import OF_COMMANDS
from mmexp.instantiate import instantiate, locate
from mmexp.planning.validate import validate

LISTS = ("encoder", "benchmark")
PARTS = ("fusion", "projector", "resolution", "feature_layers", "template", "turns", "balance")
NOT_CHOSEN = ("response_format", "experts", "language", "clips")
"""Folders that other files include: texts, and the stages of the lab."""


CASES = [
    (scale, group, option)
    for scale in SCALES
    for group in groups(scale)
    if group not in (*NOT_CHOSEN, *OF_COMMANDS, "sweeps")
    for option in options(group, scale)
]


@pytest.fixture(scope="module", params=SCALES)
def composer(request: pytest.FixtureRequest):
    with Composer(request.param).open() as opened:
        yield opened


def cases(scale: str) -> list[tuple[str, str]]:
    return [(group, option) for case_scale, group, option in CASES if case_scale == scale]


def test_every_option_composes_and_its_stages_build(composer: Composer) -> None:
    from mmexp.model.visual import build_encoder

    for group, option in cases(composer.scale):
        choice = f"{group}=[{option}]" if group in LISTS else f"{group}={option}"
        config = composer.compose([choice]).resolved()
        if group == "encoder":
            import torch

            with torch.device("meta"):
                build_encoder(option, config["model"]["encoders"][option], load=False)
        elif group in ("template", "turns", "balance", "decay"):
            instantiate(config[group], group)
        elif group == "experiments":
            validate(config)


def test_nothing_in_the_folders_is_missed() -> None:
    """The cases above are all YAML files there are, counted on disk."""
    root = config_root()
    files = {path for folder in ("conf", "experiments", "sweeps") for path in (root / folder).rglob("*.yaml")}
    primary = {root / "conf" / name for name in ("base.yaml", "lab.yaml", "paper.yaml")}
    settings = set((root / "conf" / "scale").glob("*/scale_settings.yaml"))
    included = {path for folder in NOT_CHOSEN for path in (root / "conf").rglob(f"{folder}/*.yaml")}
    tested: set[Path] = {path for scale in SCALES for group in groups(scale) for path in options(group, scale).values()}
    launchers = set(options("hydra/launcher", "lab").values())  # in every config; run by the tests of sweeps
    assert tested | included | launchers == files - primary - settings
    assert len(tested) >= 40


def test_targets_exist() -> None:
    for path in (config_root() / "conf").rglob("*.yaml"):
        for line in path.read_text().splitlines():
            if line.strip().startswith("_target_:") and "${" not in line:
                locate(line.split(":", 1)[1].strip(), str(path))
