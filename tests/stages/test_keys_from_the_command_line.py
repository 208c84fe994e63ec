"""An edited part or data file is never answered with an old result; a moved one is never trained again."""

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmexp.cli.main import main
from mmexp.files import read_json, write_json
from tests import fakes
from tests.stages.own_project import write_captions, write_project

RUN = ["run", "--scale", "paper", "experiments=own"]


def forget_own_modules() -> None:
    """As a new process would."""
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose run is finished."""
    folder = write_project(tmp_path_factory.mktemp("project"))
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        assert main(RUN) == 0
    forget_own_modules()
    yield folder


@pytest.fixture
def here(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as ``cp -a`` makes it, to work in."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    enter(folder, monkeypatch)
    return folder


def enter(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    patch.syspath_prepend(str(folder))
    patch.delenv("MMEXP_OUT", raising=False)
    patch.setattr("mmexp.planning.check.check_trial", lambda config: None)  # these stages have no model
    forget_own_modules()


def explained(capsys: pytest.CaptureFixture[str], *overrides: str) -> list[str]:
    capsys.readouterr()
    forget_own_modules()
    assert main([*RUN, "--explain", *overrides]) == 0
    return [line.strip() for line in capsys.readouterr().out.splitlines()]


def append(name: str, text: str = "\nanother = 2\n") -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text((folder / name).read_text() + text)


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (append("own_parts.py"), "projector._target_: source of Projector differs (own_parts.py)"),
        (append("own_helper.py"), "projector._target_: source of Projector differs (own_helper.py)"),
        (append("own_stage.py"), "_target_: source of Train differs (own_stage.py)"),
        (
            lambda folder: write_captions(folder / "data/captions.json", 1),
            "data.datasets.captions.annotations: content differs (captions.json)",
        ),
        (
            lambda folder: (folder / "data/images/coco/1.jpg").write_bytes(b"other pixels"),
            "data.datasets.captions.image_folder: files in the folder differ by name, size or time of change (images)",
        ),
    ],
    ids=["part", "helper", "stage", "captions", "image"],
)
def test_what_was_edited_is_trained_anew_and_named(here, capsys, edit, line):
    edit(here)
    lines = explained(capsys)
    assert lines[0].startswith("train ") and lines[0].endswith(": missing")
    assert lines[2] == line
    assert len([found for found in lines if ": " in found and found.startswith(("projector", "data", "_target_"))]) == 1


def move(old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: (folder / old).rename(folder / new)


@pytest.mark.parametrize(
    ("edit", "overrides"),
    [
        (lambda folder: None, ()),
        (move("data/captions.json", "other.json"), ("recipe.annotations=other.json",)),
        (move("data", "moved"), ("recipe.annotations=moved/captions.json", "recipe.images=moved/images")),
        (move("own_parts.py", "own_renamed.py"), ("recipe.part=own_renamed.Projector",)),
        (append("own_unrelated.py"), ()),
        (move("data/images/gqa", "data/images/vg"), ()),
    ],
    ids=["copied", "captions", "folder", "module", "unrelated module", "unrelated images"],
)
def test_what_was_moved_or_is_not_read_is_not_trained_again(here, capsys, edit, overrides):
    edit(here)
    lines = explained(capsys, *overrides)
    assert lines[0].startswith("train ") and ": exists: " in lines[0]


def test_a_run_trains_after_an_edit_and_not_again(here, capsys, monkeypatch):
    monkeypatch.setenv(fakes.JOURNAL, str(here / "journal"))
    assert main(RUN) == 0
    assert not (here / "journal").exists()
    append("own_helper.py")(here)
    forget_own_modules()
    for _ in range(2):
        assert main(RUN) == 0
        assert len((here / "journal").read_text().splitlines()) == 2  # train and evaluate, once


def test_a_setting_is_explained_by_its_values_and_the_evaluation_by_its_parent(here, capsys):
    lines = explained(capsys, "recipe.value=2")
    assert "value: 1 there, 2 here" in lines
    assert any(line.startswith("parents.train: ") for line in lines)


def test_a_finished_stage_of_an_earlier_version_is_spoken_of(here, capsys):
    for path in (here / "mmexp_out").glob("*/*/stage.json"):
        record = read_json(path)
        del record["key_format"]
        write_json(path, record)
        key = path.parent.name
        path.parent.rename(path.parent.with_name("0" * 12 + key[12:]))
    capsys.readouterr()
    assert main(RUN) == 0
    [line] = [line for line in capsys.readouterr().err.splitlines() if "earlier version" in line]
    assert line == (
        "the store holds 2 finished stages of an earlier version of mmexp (their keys are made differently); "
        "they are not used again; see mmexp store ls"
    )
    assert main(["store", "ls", "--scale", "paper"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("earlier version") == 2 and shown.count("  finished  ") == 2
    assert main(["store", "explain", "0000", "--scale", "paper"]) == 2  # two begin so
    assert main(["store", "explain", f"{'0' * 12}{key[12:]}", "--scale", "paper"]) == 0
    assert "of an earlier version of mmexp" in capsys.readouterr().out


def test_store_explain_names_what_differs(here, capsys):
    write_captions(here / "data/captions.json", 1)
    forget_own_modules()
    assert main(RUN) == 0
    records = [read_json(path) for path in (here / "mmexp_out/store").glob("*/stage.json")]
    keys = [record["key"] for record in records if record["name"] == "train"]
    capsys.readouterr()
    assert main(["store", "explain", keys[0][:10], "--scale", "paper"]) == 0
    assert "data.datasets.captions.annotations: content differs (captions.json)" in capsys.readouterr().out
