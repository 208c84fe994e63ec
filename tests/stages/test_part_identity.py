"""What keys see of code: ours by name and VERSION, libraries by name, a user's own by source."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mmexp import instantiate
from mmexp.config.folders import OF_COMMANDS
from mmexp.config.part_identity import LIBRARIES, OURS, part_identity
from mmexp.config.source_files import class_version, find_class
from mmexp.stages.differences import differences
from mmexp.stages.graph import build_graph
from tests import fakes

REPOSITORY = Path(__file__).parents[2]
FOLDERS = ("conf", "experiments", "sweeps")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder on the import path that is the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write(folder: Path, **texts: str) -> None:
    """``a__b="..."`` writes ``a/b.py``."""
    for name, text in texts.items():
        path = folder / f"{name.replace('__', '/')}.py".replace("/init.py", "/__init__.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    importlib.invalidate_caches()


def hashed(target: str) -> str:
    found = part_identity(target)
    assert found is not None
    return found.hashed


def test_a_part_of_ours_is_its_name_and_version():
    assert (
        hashed("mmexp.training.stage.TrainStage") == f"TrainStage {class_version('mmexp.training.stage', 'TrainStage')}"
    )
    assert hashed("mmexp.model.projector.mlp.MlpProjector") == "MlpProjector 1"


def test_a_class_of_ours_that_moves_keeps_its_identity():
    """A package that imports it stands for its new place."""
    assert hashed("mmexp.config.Composer") == hashed("mmexp.config.composition.Composer")


def test_a_raised_version_changes_the_key_and_is_named(monkeypatch):
    config = fakes.config(Path("/nowhere"))
    config["lab"]["stages"]["base"]["part"] = {"_target_": "mmexp.model.projector.mlp.MlpProjector"}
    before = build_graph(config, "base").last
    raised = {"MlpProjector": 2}
    monkeypatch.setattr("mmexp.config.part_identity.class_version", lambda module, name: raised.get(name))
    after = build_graph(config, "base").last
    assert before.key != after.key
    [found] = differences(before.hashed, after.hashed)
    assert str(found) == "part._target_: VERSION of MlpProjector is 1 there, 2 here"


def test_libraries_and_what_is_not_there_are_known_by_their_path():
    for target in ("torch.optim.AdamW", "pathlib.Path", "no_such.Thing", "mmexp.no_such.Thing", "word"):
        assert part_identity(target) is None


def test_every_library_that_configs_may_name_is_one_here():
    assert set(instantiate.ROOTS) <= {*LIBRARIES, OURS}


def test_an_own_part_is_the_source_of_its_module_and_of_what_lies_beside(project):
    write(project, own_a="from own_b import x\n", own_b="import own_c\n", own_c="y = 1\n", own_d="z = 1\n")
    write(project, own_a="from own_b import x\nimport torch, yaml\nclass Part: ...\n")
    before = part_identity("own_a.Part")
    assert sorted(before.detail) == ["own_a.py", "own_b.py", "own_c.py"]
    write(project, own_d="z = 2222\n")
    assert part_identity("own_a.Part") == before
    write(project, own_c="y = 2222\n")
    assert part_identity("own_a.Part").hashed != before.hashed


def test_relative_imports_and_packages_are_followed(project):
    write(
        project,
        pack__init="from .first import Part\n",
        pack__first="from . import second\nfrom .deep.third import x\nclass Part: ...\n",
        pack__second="a = 1\n",
        pack__deep__init="",
        pack__deep__third="from ..fourth import y\n",
        pack__fourth="y = 1\n",
    )
    found = part_identity("pack.first.Part")
    assert sorted(found.detail) == ["__init__.py", "first.py", "fourth.py", "second.py", "third.py"]
    assert part_identity("pack.Part") == found


def test_moving_or_renaming_an_own_module_changes_nothing(project):
    write(project, own_a="class Part: ...\n")
    before = hashed("own_a.Part")
    write(project, parts__init="", parts__renamed="class Part: ...\n")
    assert hashed("parts.renamed.Part") == before
    assert hashed("own_a.Other") != before


def test_own_source_that_is_not_python_is_still_read(project):
    write(project, own_a="class Part:\n")
    before = hashed("own_a.Part")
    write(project, own_a="class Part: (\n")
    assert hashed("own_a.Part") != before


def test_a_version_of_ours_that_an_own_part_builds_on_counts(project, monkeypatch):
    write(project, own_a="from mmexp.model.projector.mlp import MlpProjector\nclass Part(MlpProjector): ...\n")
    before = hashed("own_a.Part")
    monkeypatch.setattr("mmexp.config.part_identity.class_version", lambda module, name: 2)
    assert hashed("own_a.Part") != before


def test_of_an_installed_package_only_the_package_itself_is_read(tmp_path, monkeypatch):
    installed = tmp_path / "lib" / "site-packages"
    write(installed, plugin__init="", plugin__part="import other_library\nclass Part: ...\n", other_library="x = 1\n")
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.chdir(tmp_path)
    assert list(part_identity("plugin.part.Part").detail) == ["part.py"]


def test_versions_are_inherited_through_imports(project):
    write(
        project,
        base_a="class Base:\n    VERSION: int = 4\n",
        own_a="from own_b import Base as B\nclass Part(B): ...\nclass Plain: ...\n",
        own_b="import base_a\nclass Base(base_a.Base): ...\n",
        loop_a="from loop_b import X\n",
        loop_b="from loop_a import X\n",
    )
    assert class_version("own_b", "Base") is None  # another package's class
    write(project, own_b="class Base:\n    VERSION = 3\n")
    assert find_class("own_a", "B") == ("own_b", "Base")
    assert class_version("own_b", "Base") == 3 and class_version("own_a", "Plain") is None
    assert find_class("loop_a", "X") is None


def test_keys_of_a_composed_config_need_no_torch():
    code = (
        "import sys\nfrom mmexp.config import Composer\nfrom mmexp.stages.graph import build_graph\n"
        "with Composer('lab').open() as composer: config = composer.compose([]).resolved()\n"
        "print(len(build_graph(config).keys) > 3, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def targets(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["_target_"]} if isinstance(node.get("_target_"), str) else set()
        return own.union(*map(targets, node.values())) if node else own
    return set().union(*map(targets, node)) if isinstance(node, list) else set()


def test_no_two_classes_of_ours_that_configs_name_share_a_name():
    """Keys see the name alone; converters and importers are not part of a run, so of no key."""
    named: dict[str, set[tuple[str, str]]] = {}
    files = [path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.yaml")]
    files = [path for path in files if path.parent.name not in OF_COMMANDS]
    for path in files:
        for target in targets(yaml.safe_load(path.read_text())):
            if target.startswith(f"{OURS}."):
                module, _, name = target.rpartition(".")
                found = find_class(module, name)
                assert found, f"{path}: {target}"
                named.setdefault(found[1], set()).add(found)
    assert len(files) > 100 and len(named) > 50
    assert {name: places for name, places in named.items() if len(places) > 1} == {}


def test_two_classes_of_one_name_in_one_package_are_two_parts(project):
    write(project, pack__init="from . import a, b\n", pack__a="class Net: x = 1\n", pack__b="class Net: x = 2\n")
    assert hashed("pack.a.Net") != hashed("pack.b.Net")


def test_helpers_that_change_places_are_another_part(project):
    text = "from own_first import x\nfrom own_second import y\nclass Part: ...\n"
    write(project, own=text, own_first="x = 1\n", own_second="y = 22\n")
    before = hashed("own.Part")
    write(project, own=text, own_first="y = 22\n", own_second="x = 1\n")
    assert hashed("own.Part") != before


def test_a_linked_module_is_seen(project, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "real.py"
    elsewhere.write_text("class Part: ...\n")
    (project / "linked.py").symlink_to(elsewhere)
    before = hashed("linked.Part")
    elsewhere.write_text("class Part: x = 1\n")
    assert hashed("linked.Part") != before
