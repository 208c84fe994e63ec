"""Searches with Optuna: every sampler, goes on after anything, runs no point twice."""

import io
import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from mmexp.config import Composer
from mmexp.config.schema import typed_arguments
from mmexp.errors import UserError
from mmexp.sweeping.search import optuna_points
from mmexp.sweeping.search.optuna_schema import make_pruner, make_sampler
from mmexp.sweeping.search.optuna_search import OptunaSearch
from mmexp.sweeping.search.space import read_space
from mmexp.sweeping.session import MissingResultsError, Order, run_sweep
from mmexp.sweeping.workers.inline import InlineLauncher
from tests import fakes
from tests.sweeping.search_fakes import write_user_folders


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    return write_user_folders(tmp_path_factory.mktemp("configs"))


@pytest.fixture(scope="module")
def composed():
    return {}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, configs, composed):
    """Results of each test in a folder of its own; what is composed once serves all of them."""
    monkeypatch.chdir(configs)
    monkeypatch.setenv("MMEXP_OUT", str(tmp_path / "mmexp_out"))
    monkeypatch.setenv(fakes.JOURNAL, str(tmp_path / "journal"))
    (tmp_path / "journal").touch()
    compose = Composer.compose

    def remembered(self, overrides=()):
        key = (
            *sorted(path.read_text() for path in (configs / "sweeps").iterdir()),
            (configs / "conf" / "recipe" / "learn.yaml").read_text(),
            *overrides,
        )
        if key not in composed:
            composed[key] = compose(self, overrides)
        return composed[key]

    monkeypatch.setattr(Composer, "compose", remembered)
    return tmp_path


def search(*arguments, name="search", dry_run=False, retry_failed=False, launcher=None, validate=lambda config: None):
    shown = io.StringIO()
    order = Order(
        scale="paper",
        arguments=[f"sweeps={name}", *arguments],
        launcher=launcher or InlineLauncher(),
        dry_run=dry_run,
        retry_failed=retry_failed,
        report=lambda folder, console: None,
        validate=validate,
        console=Console(file=shown, width=150),
    )
    folder = run_sweep(order)
    return folder, shown.getvalue()


def record(folder):
    return json.loads((folder / "ledger.json").read_text())["search"]


def trained(here):
    return [line for line in (here / "journal").read_text().splitlines() if line.endswith(" 3")]


def states(folder):
    return [trial["state"] for trial in record(folder)["trials"] if trial["same_as"] is None]


def sampler(name):
    return f"++sweep.search.sampler={{_target_:optuna.samplers.{name}}}"


GRID = sampler("GridSampler")


@pytest.mark.parametrize("name", ["TPESampler", "RandomSampler", "NSGAIISampler", "GridSampler", "QMCSampler"])
def test_every_sampler_finds_points_and_runs_none_twice(here, name):
    folder, _ = search(sampler(name), "++sweep.search.n_trials=5")
    assert states(folder) == ["done"] * 5
    assert len(trained(here)) == len(set(trained(here))) == 5
    best = record(folder)["best"]
    values = {trial["number"]: trial["values"][0] for trial in record(folder)["trials"]}
    assert values[best[0]] == max(values.values())


def test_the_same_command_goes_on_and_repeats_nothing(here):
    search()
    before = trained(here)
    folder, _ = search()
    assert trained(here) == before
    search("++sweep.search.n_trials=5")
    assert len(states(folder)) == 5 and len(trained(here)) == 5
    rows = [entry["row"] for entry in json.loads((folder / "ledger.json").read_text())["trials"]]
    assert len(rows) == 5


def test_a_finite_space_is_searched_to_its_end(here):
    folder, _ = search(sampler("RandomSampler"), "++sweep.search.n_trials=50", name="fewer")
    assert sorted(states(folder)) == ["done"] * 3


def test_a_point_of_another_sweep_is_told_with_its_value(here):
    search(GRID, "++sweep.search.n_trials=6")
    before = trained(here)
    folder, _ = search("++sweep.search.study=second", GRID, "++sweep.search.n_trials=6")
    assert trained(here) == before
    assert sorted(trial["values"][0] for trial in record(folder)["trials"]) == [1, 2, 3, 4, 5, 6]


def test_two_objectives_give_a_pareto_set(here):
    objectives = "[{metric:mean,direction:maximize},{metric:visual_tokens,direction:minimize}]"
    folder, _ = search(f"++sweep.search.objectives={objectives}", GRID, "++sweep.search.n_trials=6")
    found = record(folder)
    values = {trial["number"]: trial["values"] for trial in found["trials"]}
    assert sorted(values[number] for number in found["best"]) == [[5, 0], [6, 1]]


def test_points_that_cannot_be_are_told_as_infeasible_and_not_trained(here):
    def refuse(config):
        if config["recipe"]["value"] > 2:
            raise UserError("recipe.value: more than 2")

    folder, _ = search(GRID, "++sweep.search.n_trials=6", validate=refuse)
    found = [trial for trial in record(folder)["trials"] if trial["state"] == "infeasible"]
    assert len(found) == 4 and len(trained(here)) == 2
    assert {trial["reason"] for trial in found} == {"recipe.value: more than 2"}
    assert all(trial["constraints"]["valid"] > 0 for trial in found)


def test_constraints_are_looked_at_before_training(here, monkeypatch):
    monkeypatch.setattr(
        optuna_points, "quantities", lambda row, config: {"visual_tokens": 10 * config["recipe"]["value"]}
    )
    folder, _ = search("++sweep.search.constraints={visual_tokens:{max:30}}", "++sweep.search.n_trials=3")
    infeasible = [trial for trial in record(folder)["trials"] if trial["state"] == "infeasible"]
    assert len(trained(here)) == 3
    assert {trial["values"][0] for trial in record(folder)["trials"] if trial["values"]} == {1, 2, 3}
    assert all("visual_tokens <= 30" in trial["reason"] for trial in infeasible)


def test_failures_are_failures_and_are_tried_again_when_asked(here):
    arguments = ("recipe.trouble=null,once", GRID)
    for _ in range(2):
        with pytest.raises(MissingResultsError, match="1 of 2 trials"):
            search(*arguments, name="bare")
    (here / "journal").with_suffix(".again").touch()
    folder, _ = search(*arguments, name="bare", retry_failed=True)
    assert sorted(states(folder)) == ["done", "done", "failed"]


def test_the_named_baseline_runs_first_and_the_sampler_knows_it(here):
    folder, _ = search("++sweep.search.n_trials=2", name="rows")
    first = record(folder)["trials"][0]
    assert (first["params"]["recipe.value"], first["values"], first["same_as"]) == ("6", [6.0], "base")
    assert len(trained(here)) == 2


def test_several_seeds_are_one_value(here):
    folder, _ = search("seed=0,1,2", "++sweep.search.n_trials=2")
    assert len(trained(here)) == 6 and len(record(folder)["trials"]) == 2


def test_the_command_line_is_a_space_too_and_points_that_are_one_trial_run_once(here):
    space = ("recipe.value=1,2", "recipe.plus=range(0,9,4)", "recipe.seconds=interval(0,0.01)")
    folder, _ = search(*space, name="bare")
    found = record(folder)
    assert found["space"] == {"recipe.value": "1, 2", "recipe.plus": "0 to 8, step 4", "recipe.seconds": "0 to 0.01"}
    assert found["size"] is None and [trial["state"] for trial in found["trials"]] == ["done"] * 4
    assert len(trained(here)) == len({trial["params"]["recipe.value"] for trial in found["trials"]})


@pytest.mark.parametrize("storage", ["sqlite", "other.journal"])
def test_other_storages(configs, storage):
    folder, _ = search(f"++sweep.search.storage={storage}", "++sweep.search.n_trials=2")
    search(f"++sweep.search.storage={storage}", "++sweep.search.n_trials=3")
    assert states(folder) == ["done"] * 3
    assert (folder / "study.db" if storage == "sqlite" else configs / storage).is_file()


def test_a_torn_journal_is_mended(here):
    folder, _ = search("++sweep.search.n_trials=2")
    with (folder / "study.journal").open("a") as file:
        file.write('{"op_code": 4, "wor')
    search("++sweep.search.n_trials=3")
    assert states(folder) == ["done"] * 3


def test_dry_run_shows_space_and_first_points_and_starts_nothing(here):
    _, shown = search("++sweep.search.n_trials=2", dry_run=True)
    assert "6 points; TPESampler, 2 trials" in shown and "maximize mean" in shown and "at most 2 trials" in shown
    assert not (here / "mmexp_out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "sweep.search.space: nothing to search"),
        ([sampler("TPSampler")], "sweep.search.sampler._target_: optuna.samplers has no 'TPSampler'; did you mean"),
        (
            ["++sweep.search.n_trails=3"],
            "OptunaSearch has no such argument; did you mean 'n_trials'?",
        ),
        (["++sweep.search.n_trials=0"], "sweep.search.n_trials: 0 must be at least 1"),
        (["++sweep.search.objectives=[{metric:meann}]"], "no metric 'meann'; did you mean 'mean'?"),
        (
            ["++sweep.search.constraints={tokens:{max:1}}"],
            "no 'tokens'; did you mean 'visual_tokens'",
        ),
        (["++sweep.search.storage=mysql"], "'mysql' is not a storage"),
        (["recipe.valu=1,2"], "recipe.valu: no such key; did you mean 'value'?"),
        (["projector=linear,mlp2"], "projector=mlp2: no such option"),
        (
            ["++sweep.search.space={recipe.value:[1,2]}", "recipe.value=1"],
            "recipe.value: is a dimension of the search and set on the command line",
        ),
        ([GRID, "recipe.seconds=interval(0,1)"], "recipe.seconds is an interval"),
        (["++sweep.baseline=base"], "sweep.baseline: no row 'base'"),
        (["++sweep.search.pruner={_target_:optuna.pruners.MedianPruner}"], "sweep.search.validation: is missing"),
    ],
)
def test_mistakes_are_one_line(here, arguments, message):
    space = arguments and not any("=" in text and not text.startswith("++sweep") for text in arguments)
    with pytest.raises(UserError) as caught:
        search(*arguments, name="search" if space else "bare")
    assert message in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert not trained(here)


def test_a_space_that_changed_is_one_line(configs):
    sweep = configs / "sweeps" / "changing.yaml"
    sweep.write_text((configs / "sweeps" / "search.yaml").read_text())
    search("++sweep.search.n_trials=2", name="changing")
    with pytest.raises(UserError, match=r"other objectives"):
        search("++sweep.search.objectives=[{metric:mean,direction:minimize}]", name="changing")
    sweep.write_text((configs / "sweeps" / "fewer.yaml").read_text())
    with pytest.raises(UserError, match=r"another search space \(recipe.value: 1 2 3 4 5 6, now 1 2 3\)"):
        search("++sweep.search.n_trials=3", name="changing")


def test_configs_that_changed_behind_a_study_are_one_line(configs):
    search("++sweep.search.n_trials=2")
    recipe = configs / "conf" / "recipe" / "learn.yaml"
    recipe.write_text(recipe.read_text().replace("steps: 4", "steps: 5"))
    with pytest.raises(UserError, match=r"configs behind study .* have changed"):
        search("++sweep.search.n_trials=2")


def test_the_documented_example_reads():
    text = (Path(__file__).parent.parent.parent / "docs" / "sweeps.md").read_text().partition("## Optuna")[2]
    node = yaml.safe_load(text.partition("```yaml")[2].partition("```")[0])["sweep"]
    typed = typed_arguments(OptunaSearch, node["search"], "sweep.search")
    assert typed["validation"].metric == "overall" and len(typed["constraints"]) == 2
    space = read_space(node["search"]["space"], ["template=vicuna_v1,llama3"], "paper")
    make_sampler(node["search"]["sampler"], space, 1, 0)
    make_pruner(node["search"]["pruner"])
    found = {dimension.name: str(dimension) for dimension in space.dimensions}
    assert "mlp2x_gelu" in found["projector"] and found["template"] == "vicuna_v1, llama3"
    assert found["trainer.align.lr"] == "0.0001 to 0.1, log"
    assert found["trainer.finetune.schedule.steps"] == "100 to 400, step 100" and space.size is None
