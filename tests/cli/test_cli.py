import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmexp.cli.main import COMMANDS, main
from tests import fakes

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(fakes.write_user_folders(tmp_path))
    monkeypatch.delenv("MMEXP_OUT", raising=False)
    return tmp_path


@pytest.fixture
def unchecked(monkeypatch):
    """Fake stages have no model to build."""
    monkeypatch.setattr("mmexp.planning.check.check_trial", lambda config: None)


def errors(capsys, *arguments: str) -> list[str]:
    """Lines on stderr of a command that is a user's mistake."""
    assert main(arguments) == 2
    shown = capsys.readouterr().err.splitlines()
    lines = [line for line in shown if not line.startswith("mmexp: composing")]
    assert all(line.startswith("mmexp: error: ") for line in lines) and lines
    return [line.removeprefix("mmexp: error: ") for line in lines]


LIGHT = [[], ["--help"], ["list"], ["list", "projector"], ["run", "--help"], ["sweep", "--help"], ["lab", "--help"]]


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_help_and_lists_import_nothing_heavy(arguments):
    code = (
        "import sys; from mmexp.cli.main import main; code = main(sys.argv[1:])\n"
        "heavy = [m for m in ('torch', 'hydra', 'omegaconf', 'pandas', 'yaml', 'rich') if m in sys.modules]\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mmexp" in done.stdout or "Linear" in done.stdout


def test_help_and_list_are_quick():
    for arguments in ([], ["--help"], ["list"]):
        best = min(timed(arguments) for _ in range(3))
        assert best < 0.6


def timed(arguments: list[str]) -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "mmexp", *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - started


def test_every_command_has_help(capsys):
    for command in COMMANDS:
        assert main([command, "--help"]) == 0
        assert f"mmexp {command}" in capsys.readouterr().out or command == "list"


def test_lists_hide_the_scale_folder_and_show_the_users_own(here, capsys):
    assert main(["list", "--scale", "paper"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert "scale" not in set(lines) - {"scale"} or lines["scale"].startswith("scale paper;")
    assert "fake" in lines["recipe"] and "mine" in lines["sweeps"]
    main(["list", "recipe", "--scale", "paper"])
    assert "One fake stage before the evaluation." in capsys.readouterr().out


PAPER = "--scale paper"
MISTAKES = {
    "swep": "no command 'swep'; did you mean 'sweep'?",
    "run --scale papr": "--scale: unknown 'papr'; did you mean 'paper'?",
    "run --expl": "no flag '--expl'; did you mean '--explain'?",
    "run quickstart": "'quickstart': neither an override (key=value) nor a flag",
    "sweep": "which sweep? 'mmexp list sweeps' shows them",
    f"list encodr {PAPER}": "list: no group 'encodr'; did you mean 'encoder'?",
    f"run {PAPER} projectr=x": "projectr: no such key; did you mean 'projector'?",
    f"run {PAPER} seed=1,2": "seed=1,2: several values need -m (one run each); a list is written seed=[1,2]",
    f"run {PAPER} +experiment=x": "experiment: no such key; did you mean 'experiments'?",
    f"run {PAPER} sweeps=mine": "sweeps=...: a sweep is started with 'mmexp sweep NAME', not with 'mmexp run'",
    f"sweep {PAPER} mne": "sweeps=mne: no such option at scale paper; did you mean 'mine'?",
    f"sweep {PAPER} mine sweep.only=[on]": "sweep.only: no row 'on'; did you mean 'one'?",
    f"sweep {PAPER} mine sweep.sed=[0]": "sweep.sed: no such key; did you mean 'seeds'?",
    f"sweep {PAPER} mine recipe.value=3": (
        "recipe.value: row 'one' sets it (recipe.value=1), so the command line cannot"
    ),
    f"sweep {PAPER} mine hydra/launcher=basic": (
        "hydra/launcher=basic: no such option at scale paper; choose from: inline, local"
    ),
    f"run -m {PAPER} experiments=fake hydra/sweeper=basic": (
        "hydra/sweeper=basic: sweep.search._target_ says what kind of sweep it is; leave hydra/sweeper out"
    ),
    f"sweep {PAPER} mine hydra.launcher.n_jobs=0": ("hydra.launcher.n_jobs: 0 workers cannot work; give at least 1"),
    f"run {PAPER} llm=null": "llm=null: must name an option; choose from: ",
    f"run {PAPER} seed=-1": "seed: -1 must be at least 0 and below 4294967296",
    f"sweep {PAPER} mine sweep.seeds=[-1]": "sweep.seeds[0]: -1 must be greater than or equal to 0",
    f"sweep {PAPER} mine sweep.seeds=[]": "sweep.seeds: needs at least 1 value",
    "eval nowhere": "nowhere/config.yaml: no such file; RUN_DIR is the folder of a finished run",
    f"report mine {PAPER}": "report: no sweep 'mine' has been run at scale paper; there are none",
    "lab bild": "lab: no action 'bild'; did you mean 'build'?",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_mistakes_are_one_line_and_exit_code_2(here, capsys, command):
    [line] = errors(capsys, *command.split())
    assert line == MISTAKES[command] or (MISTAKES[command].endswith(": ") and line.startswith(MISTAKES[command]))
    assert not (here / "mmexp_out").exists()


def test_another_launcher_by_its_class_is_refused(here, capsys):
    target = "hydra.launcher._target_=hydra._internal.core_plugins.basic_launcher.BasicLauncher"
    [line] = errors(capsys, *f"sweep mine --scale paper {target}".split())
    assert line.startswith("hydra.launcher: ") and line.endswith("choose from: inline, local")


def test_cfg_and_info_go_to_hydra(here, capsys):
    assert main(["run", "--scale", "paper", "--cfg", "job", "--package", "projector", "projector=linear"]) == 0
    assert "LinearProjector" in capsys.readouterr().out
    assert main(["sweep", "mine", "--scale", "paper", "--info", "defaults"]) == 0
    assert "sweeps/mine" in capsys.readouterr().out


def test_a_run_makes_its_stages_and_shows_its_result(here, capsys, unchecked):
    arguments = ["run", "--scale", "paper", "experiments=fake"]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert "score" in shown.out and "result: " in shown.out and "finetune: done" in shown.err
    assert main([*arguments, "recipe.value=2", "--explain"]) == 0
    assert "value: 1 there, 2 here" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "done" not in capsys.readouterr().err


def test_a_sweep_and_its_report(here, capsys, unchecked):
    assert main(["sweep", "mine", "--scale", "paper", "sweep.seeds=[3]", "hydra/launcher=inline"]) == 0
    assert len([path for path in (here / "mmexp_out" / "runs").iterdir() if path.name[0] != "."]) == 2
    capsys.readouterr()
    assert main(["report", "mine", "--scale", "paper"]) == 0
    assert "report.html" in capsys.readouterr().out
    assert main(["sweep", "mine", "--scale", "paper", "recipe.trouble=null", "hydra/launcher=inline"]) == 0
    assert main(["report", "mine@recipe.trouble=null", "--scale", "paper"]) == 0


def test_plain_multirun_goes_through_the_engine_and_missing_results_are_exit_code_1(here, capsys, unchecked):
    arguments = ["run", "-m", "--scale", "paper", "experiments=fake", "recipe.value=1,-1", "hydra/launcher=inline"]
    assert main(arguments) == 1
    assert "value: -1 is negative" in capsys.readouterr().out
    assert main([*arguments, "recipe.trouble=null"]) == 1


def test_dry_run(here, capsys, unchecked):
    assert main(["sweep", "mine", "--scale", "paper", "--dry-run"]) == 0
    assert "4 trials, 0 done" in capsys.readouterr().out
    assert not (here / "mmexp_out").exists()


def test_sweep_as_a_module(here):
    done = subprocess.run(
        [sys.executable, "-m", "mmexp", "sweep", "nothing", "--scale", "paper"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 2
    assert "mmexp: error: sweeps=nothing: no such option" in done.stderr
