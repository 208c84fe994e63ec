from pathlib import Path

from mmexp.config import compose, config_root, groups, options, search_folders
from mmexp.config.folders import headline


def test_the_users_own_files_are_found_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "conf" / "projector" / "linear.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# Mine.\n_target_: mine.Linear\nwidth: 3\n")
    other = tmp_path / "conf" / "scale" / "paper" / "llm" / "mine.yaml"
    other.parent.mkdir(parents=True)
    other.write_text("_target_: mine.Llm\n")
    config = compose("paper", ["projector=linear", "llm=mine"])
    assert config.projector == {"_target_": "mine.Linear", "width": 3}
    assert config.model.llm._target_ == "mine.Llm"
    assert options("projector", "paper")["linear"] == own
    assert "mine" not in options("llm", "lab")


def test_the_users_experiments_and_sweeps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("experiments/mine.yaml", "sweeps/a/b.yaml"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("# @package _global_\nseed: 7\n")
    assert compose("paper", ["experiments=mine"]).seed == 7
    assert compose("paper", ["sweeps=a/b"]).seed == 7
    assert "a/b" in options("sweeps", "paper")


def test_a_folder_without_configs_adds_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = config_root()
    assert search_folders("lab") == [root / "conf", root / "conf" / "scale" / "lab", root]


def test_the_repository_itself_is_not_searched_twice(monkeypatch):
    monkeypatch.chdir(config_root())
    folders = search_folders("lab")
    assert len(folders) == len(set(folders)) == 3


def test_scale_is_not_a_group():
    assert "scale" not in groups("paper") and {"experiments", "encoder", "projector"} <= set(groups("paper"))


def test_headline_is_the_first_comment_but_directives(tmp_path):
    path = Path(tmp_path / "x.yaml")
    path.write_text("# @package _global_\n# What it is.\n# More.\nkey: 1\n")
    assert headline(path) == "What it is."
    path.write_text("key: 1\n# later\n")
    assert headline(path) == ""


def test_every_yaml_says_in_one_line_what_it_is():
    """What `mmexp list` shows: one whole sentence or phrase, not the first half of one, that fits a terminal."""
    root = config_root()
    files = [path for folder in ("conf", "experiments", "sweeps") for path in (root / folder).rglob("*.yaml")]
    assert len(files) > 200
    wrong = [f"{path.relative_to(root)}: {line}" for path in files if not is_whole(line := headline(path))]
    assert wrong == [], "\n".join(wrong)


def is_whole(line: str) -> bool:
    return 0 < len(line) <= 100 and line[-1] in ".?!" and "cost:" not in line.lower()


def test_composing_leaves_other_hydra_applications_alone():
    from hydra._internal.utils import create_config_search_path
    from hydra.core.global_hydra import GlobalHydra

    compose("paper")
    assert not GlobalHydra.instance().is_initialized()
    providers = [entry.provider for entry in create_config_search_path(None).get_path()]
    assert "mmexp" not in providers and "yours" not in providers
