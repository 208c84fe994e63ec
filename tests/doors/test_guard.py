"""What a config may name: refused before it is imported, or before it is built; and whose modules are found."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmexp.cli.main import main
from mmexp.config import Composer, config_root
from mmexp.errors import UserError
from mmexp.instantiate import allow_prefixes, instantiate, locate, see_working_directory
from mmexp.interfaces import Projector
from mmexp.planning.check import check_trial
from mmexp.planning.validate import check_kinds, validate
from mmexp.stages.graph import build_graph
from tests.doors.test_extend import command_line
from tests.tiny import tiny_spec

SENTINEL = "sentinel"
WRITES = f'open("{SENTINEL}", "w").close()\n'
PROJECTOR = """\
from torch import nn
from mmexp.interfaces import FeatureMap
class Own(nn.Module):
    def __init__(self, *, width, in_dim, in_tokens, in_grid, out_dim):
        super().__init__()
        self.num_tokens, self.grid, self.out_dim = in_tokens, in_grid, out_dim
        self.linear = nn.Linear(in_dim, out_dim)
    def forward(self, features):
        return FeatureMap(self.linear(features.tokens), self.grid)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; modules that a test imports from it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), list(sys.path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
    sys.path[:] = path


def option(folder: Path, group: str, target: str, **arguments: object) -> None:
    """``conf/<group>/bad.yaml``."""
    path = folder / "conf" / group / "bad.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{name}: {value}" for name, value in {"_target_": target, **arguments}.items()]
    path.write_text("# Bad.\n" + "\n".join(lines) + "\n")


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """The one line of a command that is a user's mistake."""
    assert main(command) == 2
    [line] = [text for text in capsys.readouterr().err.splitlines() if text.startswith("mmexp: error: ")]
    return line.removeprefix("mmexp: error: ")


def refusal(target: str, **arguments: object) -> str:
    """What is said of a model with this projector."""
    from mmexp.planning.meta import meta_model

    with pytest.raises(UserError) as caught:
        meta_model(tiny_spec(projector={"_target_": target, **arguments}))
    return str(caught.value)


FOREIGN: dict[str, dict[str, object]] = {
    "os.system": {"command": f"touch {SENTINEL}"},
    "subprocess.run": {"args": ["touch", SENTINEL]},
    "subprocess.Popen": {"args": ["touch", SENTINEL]},
    "builtins.eval": {"source": f"open('{SENTINEL}', 'w')"},
    "importlib.import_module": {"name": "this"},
    "pickle.load": {"file": "x"},
    "pathlib.Path": {},
    "torch.hub.load": {"repo_or_dir": "a/b", "model": "c"},
    "torch.utils.collect_env.run": {"command": f"touch {SENTINEL}"},
    "transformers.dynamic_module_utils.get_class_from_dynamic_module": {"class_reference": "a"},
    "mmexp.cli.main.main": {"arguments": ["lab"]},
}


@pytest.mark.parametrize("target", FOREIGN)
def test_what_runs_code_is_refused_by_its_name(target: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.import_module", only(monkeypatch, target.rpartition(".")[0]))
    line = refusal(target, **FOREIGN[target])
    assert line.startswith(f"projector._target_: '{target}' ")
    assert "no config may" in line
    assert not (here / SENTINEL).exists()


def only(monkeypatch: pytest.MonkeyPatch, forbidden: str) -> object:
    """``import_module`` that fails the test when the module behind a refused name is imported."""
    import importlib

    real = importlib.import_module

    def guarded(name: str, package: str | None = None) -> object:
        assert name != forbidden
        return real(name, package)

    return guarded


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    """The default config of scale lab, resolved."""
    with Composer("lab").open() as composer:
        return composer.compose().resolved()


def changed(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy with another value at a dotted key."""
    copied = copy.deepcopy(config)
    *parents, last = key.split(".")
    node: Any = copied
    for name in parents:
        node = node[name]
    node[last] = value
    return copied


PLACES = (
    "recipe.stages.align.model.projector",
    "recipe.stages.align.model.llm",
    "recipe.stages.align.data.balance",
    "recipe.stages.align.data.template",
    "recipe.stages.align.data.turns",
    "recipe.stages.align.data.datasets.captions",
    "recipe.stages.align.optimizer",
    "recipe.stages.align.schedule.decay",
    "recipe.stages.align",
    "evaluation.benchmarks.lab",
    "evaluation.benchmarks.lab.metric",
    "evaluation.runtime.logger.loggers.csv",
)


@pytest.mark.parametrize("key", PLACES)
def test_every_place_is_guarded_before_a_run(key: str, base: dict[str, Any]) -> None:
    config = changed(base, f"{key}._target_", "os.system")
    with pytest.raises(UserError, match=r"'os\.system' is of Python's own library") as caught:
        build_graph(config)
        check_trial(config)
    assert f"{key.rpartition('.')[2]}._target_: " in str(caught.value)


def test_nothing_is_run_that_names_what_it_may_not(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    option(here, "decay", "os.system", command=f"touch {SENTINEL}")
    assert "decay._target_: 'os.system' is of Python's own library" in refused(capsys, "run", "decay=bad")
    assert not (here / SENTINEL).exists() and not list(here.glob("mmexp_out/store/*"))


def test_functions_and_other_classes_are_refused_where_a_projector_is_expected(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "parts_a.py").write_text(
        f"import torch\ndef make(**given):\n    {WRITES}"
        f"class Plain:\n    def __init__(self, **given):\n        {WRITES}"
        f"class NoForward(torch.optim.SGD):\n    def __init__(self, **given):\n        {WRITES}"
        f"class Silent(torch.nn.Linear):\n    def __init__(self, *, in_dim, out_dim):\n"
        f"        super().__init__(in_dim, out_dim)\n"
    )
    needed = "; needed is a class that is a torch Module and a mmexp Projector (docs/extend.md)"
    for name, said in (
        ("make", "is a function, not a class"),
        ("Plain", "does not inherit from torch Module"),
        ("NoForward", "does not inherit from torch Module"),
        ("Silent", "sets no 'num_tokens'"),
    ):
        assert refusal(f"parts_a.{name}") == f"projector._target_: parts_a.{name} {said}{needed}"
    option(here, "projector", "parts_a.make")
    assert (
        refused(capsys, "plan", "projector=bad")
        == f"projector._target_: parts_a.make is a function, not a class{needed}"
    )
    assert not (here / SENTINEL).exists()


KINDS = {
    "optimizer._target_": ("torch.nn.Linear", "does not inherit from torch Optimizer"),
    "schedule.decay._target_": ("mmexp.data.turns.SingleTurn", "has no method 'factor'"),
    "schedule.decay": ("linear", "has no _target_; it is 'linear'"),
    "data.turns._target_": ("mmexp.training.schedule.Cosine", "has no method 'split'"),
    "data.template._target_": ("torch.nn.Linear", "does not inherit from mmexp Template"),
    "data.datasets.captions._target_": ("mmexp.training.schedule.Cosine", "has no method '__len__'"),
    "runtime.logger.loggers.csv._target_": ("torch.nn.Linear", "does not inherit from lightning Logger"),
}


@pytest.mark.parametrize("key", KINDS)
def test_a_class_of_another_kind_is_refused_before_anything_is_trained(key: str, base: dict[str, Any]) -> None:
    value, said = KINDS[key]
    with pytest.raises(UserError) as caught:
        validate(changed(base, f"recipe.stages.align.{key}", value))
    assert str(caught.value).startswith(f"recipe.stages.align.{key}: ") and said in str(caught.value)


def test_benchmarks_and_metrics_of_another_kind_are_refused(base: dict[str, Any]) -> None:
    for key in ("benchmarks.lab._target_", "benchmarks.lab.metric._target_"):
        evaluation = changed(base["evaluation"], key, "torch.nn.Linear")
        with pytest.raises(UserError, match=rf"evaluation\.{key}: torch.nn.Linear does not inherit from mmexp"):
            check_kinds("evaluation", evaluation)


def test_mistakes_in_ones_own_module_are_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "parts_b.py").write_text(PROJECTOR)
    (here / "parts_c.py").write_text("import torch\nwidth = torch.nothing\n")
    (here / "parts_d.py").write_text("import a_library_that_is_not_there\n")
    (here / "parts_e.py").write_text("import sys\nsys.exit(0)\n")
    for target, said in (
        ("parts_b.Owm", "parts_b has no 'Owm'; did you mean 'Own'?"),
        ("part_b.Own", "'part_b.Own' is neither in mmexp, torch, lightning, timm, transformers, optuna nor in a module "
                       "of this folder; did you mean 'parts_b'?"),
        ("fancy.Own", "'fancy.Own' is neither in mmexp, torch, lightning, timm, transformers, optuna nor in a module "
                      "of this folder; to use an installed package, list it in allow_targets"),
        ("mmexp.model.projectr.mlp.MlpProjector", "no module 'mmexp.model.projectr'; did you mean 'projector'?"),
        ("parts_c.Own", "importing parts_c failed: AttributeError: module 'torch' has no attribute 'nothing'"),
        ("parts_d.Own", "parts_d imports 'a_library_that_is_not_there', which is not there"),
        ("parts_e.Own", "importing parts_e failed: SystemExit: 0"),
        ("parts_b", "'parts_b' must be a dotted path, module.Class"),
    ):  # fmt: skip
        assert refusal(target) == f"projector._target_: {said}"
    option(here, "projector", "parts_c.Own")
    assert "importing parts_c failed: AttributeError" in refused(capsys, "plan", "projector=bad")


def test_an_installed_package_needs_allow_targets_at_every_place(
    here: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    installed = tmp_path_factory.mktemp("site")
    (installed / "parts_f.py").write_text(f'open("{here / SENTINEL}", "w").close()\n{PROJECTOR}')
    monkeypatch.syspath_prepend(str(installed))
    option(here, "projector", "parts_f.Own", width=8)
    assert "list it in allow_targets" in refused(capsys, "plan", "projector=bad")
    assert not (here / SENTINEL).exists()
    assert main(["plan", "projector=bad", "allow_targets=[parts_f]"]) == 0
    assert (here / SENTINEL).exists()
    with pytest.raises(UserError, match="Python's own library"):
        allow_prefixes(["os."])
        locate("os.system", "projector")


def test_a_module_that_an_installed_one_hides_is_said_to_be(here: Path) -> None:
    (here / "filelock.py").write_text(WRITES + PROJECTOR)
    with pytest.raises(UserError, match=r"\./filelock is hidden by an installed module of that name; rename yours"):
        locate("filelock.Own", "projector")
    assert not (here / SENTINEL).exists()


def test_attributes_of_a_protocol_may_be_set_by_the_constructor(here: Path) -> None:
    (here / "parts_g.py").write_text(PROJECTOR)
    facts = {"in_dim": 4, "in_tokens": 9, "in_grid": (3, 3), "out_dim": 4}
    built = instantiate({"_target_": "parts_g.Own", "width": 8}, "projector", expect=Projector, **facts)
    assert built.num_tokens == 9


def test_the_working_directory_is_searched_last(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["", str(here), "/libraries"])
    see_working_directory()
    assert sys.path == ["/libraries", str(here)]
    other = here / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    see_working_directory()
    assert sys.path == ["/libraries", str(here), str(other)]
    monkeypatch.setenv("PYTHONPATH", str(other))
    monkeypatch.setattr(sys, "path", [str(other), "/libraries"])
    see_working_directory()
    assert sys.path == [str(other), "/libraries"]


@pytest.mark.parametrize("command", [[sys.executable, "-m", "mmexp"], command_line()], ids=["module", "script"])
def test_files_called_like_libraries_are_never_imported(command: list[str], tmp_path: Path) -> None:
    for name in ("filelock", "numbers", "torch", "yaml", "difflib", "inspect", "lightning"):
        (tmp_path / f"{name}.py").write_text(WRITES + "raise RuntimeError\n")
    (tmp_path / "parts_h.py").write_text("import numbers, torch\nassert torch.nn and numbers.Number\n" + PROJECTOR)
    option(tmp_path, "projector", "parts_h.Own", width=8)
    environment = {**os.environ, "PYTHONPATH": str(config_root())}
    done = subprocess.run(
        [*command, "plan", "projector=bad"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / SENTINEL).exists()


def test_groups_of_commands_are_no_part_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "plan", "converter=gqa")
    assert line == "converter: is not part of a run; 'mmexp convert NAME ...' takes one by name"
