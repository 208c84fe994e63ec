import io
import json

import pytest
from rich.console import Console

from mmexp.errors import UserError
from mmexp.planning.check import check_arguments
from mmexp.sweeping.session import MissingResultsError, Order, known_trials, run_sweep
from mmexp.sweeping.spec import sweep as sweep_module
from mmexp.sweeping.workers.inline import InlineLauncher
from tests import fakes


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(fakes.write_user_folders(tmp_path))
    return tmp_path


def sweep(*arguments, dry_run=False, retry_failed=False, validate=lambda config: None):
    shown = io.StringIO()
    order = Order(
        scale="paper",
        arguments=arguments,
        launcher=InlineLauncher(),
        dry_run=dry_run,
        retry_failed=retry_failed,
        report=lambda folder, console: console.print(f"report of {folder.name}"),
        validate=validate,
        console=Console(file=shown, width=150),
    )
    folder = run_sweep(order)
    return folder, shown.getvalue()


def test_a_users_own_sweep_runs_and_reports(here):
    folder, shown = sweep("sweeps=mine")
    assert folder == here / "mmexp_out" / "sweeps" / "paper" / "mine"
    ledger = json.loads((folder / "ledger.json").read_text())
    assert [(t["row"], t["seed"], t["status"]) for t in ledger["trials"]] == [
        ("one", 0, "done"),
        ("two", 0, "done"),
        ("one", 1, "done"),
        ("two", 1, "done"),
    ]
    assert ledger["sweep"]["rows"]["two"]["published"] == {"score": 5.0}
    assert ledger["trials"][0]["overrides"] == ["sweeps=mine", "recipe.value=1", "seed=0"]
    assert "report of mine" in shown


def test_a_trial_is_the_same_in_every_sweep_and_keeps_no_sweep(here):
    sweep("sweeps=mine")
    folder, _ = sweep("experiments=fake", "recipe.value=1,2,3", "seed=0,1")
    assert folder.name == "experiments=fake,recipe.value=1,2,3"
    assert len([path for path in (here / "mmexp_out" / "runs").iterdir() if path.name[0] != "."]) == 6
    config = next((here / "mmexp_out" / "runs").glob("*/config.yaml")).read_text()
    assert "sweep:" not in config and "hydra:" not in config


def test_choices_are_kept_with_the_result(here):
    folder, _ = sweep("sweeps=mine")
    run = json.loads((folder / "ledger.json").read_text())["trials"][0]["folder"]
    choices = json.loads(open(f"{run}/result.json").read())["config_choices"]
    assert choices["recipe"] == "fake" and choices["encoder"] == ["clip"]


def test_dry_run_starts_nothing(here):
    _, shown = sweep("sweeps=mine", dry_run=True)
    assert "4 trials, 0 done" in shown
    assert not (here / "mmexp_out").exists()


def test_all_mistakes_of_all_rows_in_one_list_and_nothing_starts(here):
    path = here / "sweeps" / "mine.yaml"
    rows = """\
    bad_key: {overrides: [recipe.valu=1]}
    bad_too: {overrides: [recipe.valu=1]}
    bad_option: {overrides: [projector=liner]}
"""
    path.write_text(path.read_text() + rows)
    with pytest.raises(UserError) as caught:
        sweep("sweeps=mine")
    assert str(caught.value).splitlines() == [
        "bad_key, bad_too: recipe.valu: no such key; did you mean 'value'?",
        "bad_option: projector=liner: no such option at scale paper; did you mean 'linear'?",
    ]
    assert not (here / "mmexp_out").exists()


def test_mistakes_of_rows_that_are_left_out_do_not_matter(here):
    path = here / "sweeps" / "mine.yaml"
    path.write_text(path.read_text() + "    bad: {overrides: [recipe.valu=1]}\n")
    folder, _ = sweep("sweeps=mine", "++sweep.only=[one]")
    ledger = json.loads((folder / "ledger.json").read_text())
    assert {(t["row"], t["status"]) for t in ledger["trials"]} == {("one", "done"), ("two", "not selected")}


def test_what_validation_refuses_is_not_started(here):
    def refuse(config):
        if config["recipe"]["value"] == 2:
            raise UserError("too many")

    with pytest.raises(UserError, match=r"^two: too many$"):
        sweep("sweeps=mine", validate=refuse)
    assert not (here / "mmexp_out").exists()


def test_finished_trials_are_not_validated_again(here):
    sweep("sweeps=mine")

    def refuse(config):
        raise UserError("no")

    sweep("sweeps=mine", validate=refuse)


def test_constructor_arguments_are_bound_before_launch(here):
    recipe = here / "conf" / "recipe" / "fake.yaml"
    recipe.write_text(recipe.read_text().replace("steps: 2", "stepz: 2"))
    with pytest.raises(UserError) as caught:
        sweep("sweeps=mine", "+data.finetune.datasets.mix_665k.shufle=true", validate=check_arguments)
    lines = str(caught.value).splitlines()
    assert any("recipe.stages.finetune.stepz" in line and "did you mean 'steps'" in line for line in lines)
    assert any("data.finetune.datasets.mix_665k.shufle" in line for line in lines)


def test_the_end_says_what_is_missing(here):
    with pytest.raises(MissingResultsError, match="2 of 4 trials"):
        sweep("experiments=fake", "recipe.value=1,-1", "seed=0,1")
    _, shown = sweep("experiments=fake", "recipe.value=1")
    assert "no result" not in shown


def test_the_blind_row_is_added_at_scale_lab_only(here, monkeypatch):
    assert "blind" not in known_trials("paper", ["sweeps=mine"])[0]["rows"]
    monkeypatch.setattr(sweep_module, "BLIND_SCALE", "paper")
    _, trials = known_trials("paper", ["sweeps=mine"])
    blind = [trial for trial in trials if trial.request.row == "blind"]
    assert [trial.config["recipe"]["use_images"] for trial in blind] == [False, False]


def test_seeds_come_from_the_command_line(here):
    _, trials = known_trials("paper", ["sweeps=mine", "++sweep.seeds=[5]"])
    assert {trial.config["seed"] for trial in trials} == {5}
    assert len({trial.key for trial in trials}) == 2
