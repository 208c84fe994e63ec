"""Each logger of the group mirrors a trial: curves by stage, scores, config, W&B's group and tags."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmexp.config import config_root
from mmexp.training.loggers import log_curves, log_result, open_loggers

TRIAL = {
    "key": "abc123",
    "sweep": "llava15/connector",
    "row": "mlp",
    "tags": ["mlp", "llm=base"],
    "config": {"a": {"b": 1}},
}


def node(name: str, folder: Path) -> dict[str, Any]:
    text = (config_root() / "conf" / "logger" / f"{name}.yaml").read_text()
    text = text.replace("${paths.root}", str(folder)).replace("${mmexp.wandb_offline:}", "true")
    return yaml.safe_load(text)


def records(path: Path) -> bytes:
    """The records of a W&B log: LevelDB's layout, 32 KiB blocks of chunks with a 7-byte header each."""
    data, found, at = path.read_bytes(), b"", 7
    while at + 7 <= len(data):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        length = int.from_bytes(data[at + 4 : at + 6], "little")
        found += data[at + 7 : at + 7 + length]
        at += 7 + length
    return found


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    metrics, result = tmp_path / "metrics.jsonl", tmp_path / "result.json"
    metrics.write_text("".join(json.dumps({"step": step, "loss": 1 / step}) + "\n" for step in (1, 2, 3)))
    result.write_text(json.dumps({"metrics": {"overall": 71.5}}))
    return metrics, result


@pytest.mark.parametrize("name", ["csv", "tensorboard", "none"])
def test_files_hold_curves_and_scores(name: str, files: tuple[Path, Path], tmp_path: Path) -> None:
    loggers = node(name, tmp_path)
    log_curves(loggers, TRIAL, "align", files[0])
    log_result(loggers, TRIAL, "evaluate", files[1])
    if name == "csv":
        with (tmp_path / "csv/abc123/align/metrics.csv").open() as file:
            assert [float(row["loss"]) for row in csv.DictReader(file)] == [1, 0.5, 1 / 3]
        assert "71.5" in (tmp_path / "csv/abc123/evaluate/metrics.csv").read_text()
        assert "b: 1" in (tmp_path / "csv/abc123/align/hparams.yaml").read_text()
    elif name == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(tmp_path / "tensorboard/abc123/align")).Reload()
        assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]
    else:
        assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "result.json"]


def test_wandb_offline_has_group_tags_config_and_curves(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    loggers = node("wandb", tmp_path)
    log_curves(loggers, TRIAL, "align", files[0])
    runs = list((tmp_path / "wandb").glob("offline-run-*/run-abc123.wandb"))
    assert len(runs) == 1
    text = records(runs[0])
    for expected in (b"llava15/connector", b"llm=base", b"align-loss", b'{"b":1}'):
        assert expected in text, expected


def test_no_trial_logs_nothing(tmp_path: Path) -> None:
    with open_loggers(node("csv", tmp_path), None, "lab_clip") as loggers:
        assert loggers == []
    assert not (tmp_path / "csv").exists()


def test_a_failure_closes_the_loggers_and_goes_on(tmp_path: Path) -> None:
    closed = []
    with pytest.raises(RuntimeError, match="boom"), open_loggers(node("csv", tmp_path), TRIAL, "align") as loggers:
        loggers[0].finalize = closed.append
        raise RuntimeError("boom")
    assert closed == ["failed"]
