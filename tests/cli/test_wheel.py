"""The wheel works from an empty directory: configs, experiments, sweeps and plugins travel inside it."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """Interpreter of an environment that has the wheel, and the libraries of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    subprocess.run(build, check=True, capture_output=True)
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    ask = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())
    [wheel] = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return python


@pytest.fixture
def mmexp(python, tmp_path):
    def call(*arguments: str) -> str:
        command = [str(python), "-m", "mmexp", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def test_configs_come_from_inside_the_wheel(python, tmp_path):
    code = "import mmexp.config, hydra_plugins; print(mmexp.config.config_root(), *hydra_plugins.__path__)"
    done = subprocess.run([str(python), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "_config" in done.stdout and str(REPOSITORY) not in done.stdout


def test_it_has_every_config_of_the_repository(python, tmp_path):
    code = "import mmexp.config; print(mmexp.config.config_root())"
    done = subprocess.run([str(python), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    root = Path(done.stdout.strip())
    for part in ("conf", "experiments", "sweeps"):
        shipped = {path.relative_to(REPOSITORY) for path in (REPOSITORY / part).rglob("*.yaml")}
        assert shipped == {path.relative_to(root) for path in (root / part).rglob("*.yaml")} != set()


def test_the_licence_and_the_types_travel_with_it(python, tmp_path):
    code = (
        "import importlib.metadata as m; d = m.distribution('mmexp'); print(d.metadata['License-Expression']);"
        "print([str(f) for f in d.files if f.name in ('LICENSE', 'py.typed')])"
    )
    done = subprocess.run([str(python), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    expression, files = done.stdout.splitlines()
    assert expression == "Apache-2.0"
    assert files == "['mmexp/py.typed', 'mmexp-0.1.0.dist-info/licenses/LICENSE']"


def test_list_run_and_sweep_from_an_empty_directory(mmexp, tmp_path):
    assert "quickstart" in mmexp("list", "sweeps")
    assert "LinearProjector" in mmexp("run", "--scale", "paper", "--cfg", "job", "projector=linear")
    assert "trials, 0 done" in mmexp("sweep", "llava15/connector", "--scale", "paper", "--dry-run")
    assert list(tmp_path.iterdir()) == []


def test_the_users_own_folders_come_first(mmexp, tmp_path):
    own = tmp_path / "conf" / "projector" / "linear.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# Mine.\n_target_: mine.Linear\n")
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    shown = mmexp("run", "--scale", "paper", "--cfg", "job", "projector=linear", "experiments=mine")
    assert "mine.Linear" in shown and "seed: 7" in shown
    assert "Mine." in mmexp("list", "projector")
