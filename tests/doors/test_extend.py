"""docs/extend.md: every example works from an empty folder, by the command that stands below it."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmexp.config import config_root, groups
from mmexp.config.folders import TOP_GROUPS
from tests.doors.page import PAGE, sections

CHEAP = (
    "trainer.align.schedule.steps=1",
    "trainer.finetune.schedule.steps=2",
    "lab.stages.lab_world.captions.align=16",
    "lab.stages.lab_world.questions.finetune.images=24",
    "lab.stages.lab_world.questions.val.images=4",
    "lab.stages.lab_world.questions.test.images=4",
    "lab.stages.lab_world.pope.images=2",
    "lab.stages.lab_video.clips=3",
)
"""A world of a few pictures and a step or two of training."""
WITHOUT = {"recipe", "response_format", "experts", "language", "clips", "world", "scale_settings", *TOP_GROUPS}
"""Groups that hold choices of parts, not parts."""
MODEL = ("Resolution", "Encoder", "Feature layers", "Projector", "Token reduction", "Language model")
DATA = ("Source of samples", "Template", "Turns", "Balance")
WORK = ("Stage", "Optimizer", "Learning-rate decay", "Logger", "Benchmark", "Metric")
SEVERAL = ("Fusion", "Video aggregation")


def command_line() -> list[str]:
    """The command ``mmexp`` as it is installed, or the module where the tests run without an installation."""
    script = Path(sysconfig.get_path("scripts")) / "mmexp"
    return [str(script)] if script.is_file() else [sys.executable, "-m", "mmexp"]


def mmexp(folder: Path, *words: str) -> str:
    """Stdout of a command that succeeds in ``folder``."""
    environment = {**os.environ, "PYTHONPATH": str(config_root())}
    command = [*command_line(), *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(folder: Path, *titles: str) -> Path:
    """One run with the parts of several sections; returns its folder."""
    for title in titles:
        sections()[title].write(folder)
    return finished(mmexp(folder, "run", *words(*titles)), folder)


def missing(folder: Path, *titles: str) -> list[str]:
    """Names of the stages that the run would make now, as ``--explain`` says."""
    said = mmexp(folder, "run", *words(*titles), "--explain")
    return re.findall(r"^(\w+) \w+: missing$", said, re.MULTILINE)


def words(*titles: str) -> list[str]:
    """The overrides of a run with the parts of several sections."""
    chosen: dict[str, str] = {}
    for title in titles:
        for override in sections()[title].overrides:
            key, _, value = override.partition("=")
            both = value.startswith("[") and key in chosen
            chosen[key] = f"{chosen[key][:-1]},{value[1:]}" if both else value
    return ["experiments=llava15", *(f"{key}={value}" for key, value in chosen.items()), *CHEAP]


def edit(module: Path) -> None:
    module.write_text(module.read_text() + "\nEDITED = True\n")


def finished(said: str, folder: Path) -> Path:
    found = re.search(r"^result: (.+)$", said, re.MULTILINE)
    assert found, said
    return folder / found[1]


def product(folder: Path, pattern: str) -> Path:
    """The only file of the store that matches."""
    [path] = (folder / "mmexp_out" / "store").glob(pattern)
    return path


def test_the_page_has_every_kind_of_part() -> None:
    own = {path.split("/")[1] for section in sections().values() for path in section.files if path.startswith("conf/")}
    assert own == {*groups("lab"), "hydra"} - WITHOUT
    for title in ("Optimizer", "Logger", "Metric", "Stage"):
        assert title in sections()
    text = PAGE.read_text()
    assert text.count("```") == 2 * sum(len(section.files) for section in sections().values())


def test_parts_of_the_model(tmp_path: Path) -> None:
    result = json.loads((run(tmp_path, *MODEL) / "result.json").read_text())
    assert result["costs"]["visual_tokens"] == 8  # (32 / 8)^2 patches, every second of them
    assert result["costs"]["parameters_by_part"]["projector"] == (24 + 1) * 48 + (48 + 1) * 96
    assert list(tmp_path.glob("mmexp_out/runs/*/result.json"))
    assert missing(tmp_path, *MODEL) == []
    (tmp_path / "my_projector.py").rename(tmp_path / "renamed.py")
    option = tmp_path / "conf" / "projector" / "mine.yaml"
    option.write_text(option.read_text().replace("my_projector.", "renamed."))
    assert missing(tmp_path, *MODEL) == []  # a moved part is not trained again
    edit(tmp_path / "renamed.py")
    assert missing(tmp_path, *MODEL) == ["align", "finetune", "evaluate"]


def test_several_encoders_and_videos(tmp_path: Path) -> None:
    result = json.loads((run(tmp_path, *SEVERAL) / "result.json").read_text())
    assert {"lab_video", "video_count"} <= set(result["metrics"])
    assert result["costs"]["visual_tokens"] == 64  # a video costs as much as an image


def test_parts_of_the_data(tmp_path: Path) -> None:
    folder = run(tmp_path, *DATA)
    assert "overall" in json.loads((folder / "result.json").read_text())["metrics"]
    counts = [json.loads(path.read_text())["samples"] for path in (tmp_path / "mmexp_out/store").glob("*/data.json")]
    assert any(found.get("table", 0) > 0 for found in counts), counts


def test_training_evaluation_and_a_stage(tmp_path: Path) -> None:
    folder = run(tmp_path, *WORK)
    result = json.loads((folder / "result.json").read_text())
    assert {"existence", "first_word", "first_word_count"} <= set(result["metrics"])
    assert result["scoring"]["benchmarks"]["first_word"]["metric"] == {
        "_target_": "my_metric.FirstWord",
        "variant": "lower",
    }
    assert len(json.loads(product(tmp_path, "*/records.json").read_text())) == 12
    lines = [path.read_text() for path in (tmp_path / "mmexp_out" / "lines").glob("*.jsonl")]
    assert len(lines) == 3 and all('"step": ' in text for text in lines)  # two stages, and the scores
    edit(tmp_path / "my_metric.py")
    assert missing(tmp_path, *WORK) == ["evaluate"]
    listed = mmexp(tmp_path, "list", "decay")
    assert "mine" in listed and "A tenth of the rate from half of the way on" in listed


def test_a_kind_of_sweep_and_a_launcher(tmp_path: Path) -> None:
    """The first row is good enough, so the second is not run; the launcher says what it does."""
    for title in ("Kind of sweep", "Launcher"):
        sections()[title].write(tmp_path)
    launcher = [word for word in sections()["Launcher"].commands[0] if word.startswith("hydra")]
    said = mmexp(tmp_path, *sections()["Kind of sweep"].commands[0], *launcher, *CHEAP)
    assert "hello" in said and "now finetune" in said and "the end" in said
    [ledger] = (tmp_path / "mmexp_out" / "sweeps").rglob("ledger.json")
    found = json.loads(ledger.read_text())
    assert [trial["row"] for trial in found["trials"]] == ["linear"] and found["search"]["kind"] == "until_good"


def test_a_sampler_and_a_stop_rule_are_checked_before_anything_is_run(tmp_path: Path) -> None:
    section = sections()["Sampler, pruner, stop rule"]
    section.write(tmp_path)
    sampled, greedy = section.commands
    assert "2 points; Alphabetical, 1 trials" in mmexp(tmp_path, *sampled, "--dry-run", *CHEAP)
    assert "at most 3 trials" in mmexp(tmp_path, *greedy, "--dry-run", *CHEAP)
    assert not (tmp_path / "mmexp_out").exists()


def test_a_dataset_of_ones_own_is_converted(tmp_path: Path) -> None:
    section = sections()["Converter"]
    section.write(tmp_path)
    [command] = section.commands
    assert "2 records" in mmexp(tmp_path, *command)
    assert [json.loads(line)["answer"] for line in (tmp_path / "pets.jsonl").read_text().splitlines()] == ["cat", "dog"]
    assert "Pictures with the animal's name." in mmexp(tmp_path, "convert", "--help")


def released(folder: Path) -> dict[str, torch.Tensor]:
    """A checkpoint in LLaVA's form that fits the lab's model."""
    official: dict[str, Any] = {"model.embed_tokens.weight": torch.zeros(2, 2)}
    for place, width in (("0", 64), ("2", 96)):
        official[f"model.mm_projector.{place}.weight"] = torch.randn(96, width) / width
        official[f"model.mm_projector.{place}.bias"] = torch.zeros(96)
    save_file(official, folder / "released.safetensors")
    return official


def test_weights_of_others_are_imported(tmp_path: Path) -> None:
    section = sections()["Importer"]
    section.write(tmp_path)
    official = released(tmp_path)
    assert "projector, 15,552 parameters" in mmexp(tmp_path, *section.commands[0])
    [weights] = (tmp_path / "imported").glob("*.safetensors")
    ours = load_file(weights)
    assert torch.equal(ours["projector.0.layers.0.weight"], official["model.mm_projector.0.weight"])
    assert len(ours) == 4


@pytest.mark.slow
@pytest.mark.parametrize("title", [title for title in sections() if title != "Converter"])
def test_each_example_by_itself(title: str, tmp_path: Path) -> None:
    section = sections()[title]
    section.write(tmp_path)
    released(tmp_path)
    for command in section.commands:
        said = mmexp(tmp_path, *command, *(CHEAP if command[0] in ("run", "sweep") else ()))
    if command[0] == "sweep":
        assert "report: " in said
        return
    result = finished(said, tmp_path) / "result.json"
    assert json.loads(result.read_text())["metrics"]


SWEEP = """\
# @package _global_
# Two projectors under a metric of one's own.
defaults:
  - override /experiments: llava15
sweep:
  metric: first_word
  baseline: shipped
  seeds: [0]
  rows:
    shipped: {overrides: [projector=linear]}
    own: {overrides: [projector=mine]}
"""


@pytest.mark.slow
def test_workers_and_reports_find_ones_own_parts(tmp_path: Path) -> None:
    for title in ("Projector", "Metric", "Learning-rate decay"):
        sections()[title].write(tmp_path)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "own.yaml").write_text(SWEEP)
    mmexp(tmp_path, "sweep", "own", "benchmark=[first_word]", "decay=mine", *CHEAP)
    [report] = tmp_path.glob("mmexp_out/sweeps/**/report.json")
    written = json.loads(report.read_text())
    rows = {line["label"]: line for line in written["lines"]}
    assert rows["own"]["metrics"]["first_word"]["mean"] >= 0
    assert rows["own"]["difference"] is not None  # the report drew the questions anew, with the metric of the page
