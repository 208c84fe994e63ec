import io
import json
import math

import pytest
from rich.console import Console

from mmexp.errors import UserError
from mmexp.stages.store import Store
from mmexp.sweeping.engine.control import control
from mmexp.sweeping.engine.ledger import Head
from mmexp.sweeping.search.round_robin import RoundRobin
from mmexp.sweeping.session import Order, run_sweep, strategy_of
from mmexp.sweeping.workers.inline import InlineLauncher
from tests import fakes
from tests.sweeping import parts
from tests.sweeping.tables import steps

SCORES = {"a": 1, "a+b": 2, "a+c": 4, "a+d": 3, "a+b+c": 3.5, "a+c+d": 4.5, "a+b+d": 6, "a+b+c+d": 4}
RULES = "mmexp.sweeping.search.stop_rule"
EXHAUST, SEED_NOISE = {"_target_": f"{RULES}.Exhaust"}, {"_target_": f"{RULES}.SeedNoise"}
SEARCH = {
    "_target_": "mmexp.sweeping.search.round_robin.RoundRobin",
    "key": "parts",
    "base": ["a"],
    "candidates": ["b", "c", "d"],
    "stop": EXHAUST,
}


def min_improvement(amount):
    return {"_target_": f"{RULES}.MinImprovement", "amount": amount}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "journal").touch()
    monkeypatch.setenv(fakes.JOURNAL, str(tmp_path / "journal"))
    monkeypatch.setenv(parts.LANDSCAPE, str(parts.write_landscape(tmp_path, SCORES)))
    return tmp_path


def strategy(here, seeds=(0,), metric="score", findings=(), **changes):
    """A search as its file says, without composing configs."""
    node = {"metric": metric, "search": {**SEARCH, **changes}, "findings": list(findings)}
    shown = Console(file=io.StringIO(), width=150)
    return strategy_of(parts.Sweep(here, shown, node, seeds))


def search(here, seeds=(0,), retry_failed=False, **changes):
    """Run a search as the session does; returns what was shown."""
    wanted = strategy(here, seeds, **changes)
    sweep = wanted.sweep
    head = Head(name="greedy", scale="lab", sweep=wanted.node(), command=())
    store = Store.from_config(parts.config(here, 0, [], 0))
    folder = here / "sweeps" / "greedy"
    with control(folder, head, store, InlineLauncher(), retry_failed, sweep.events) as controller:

        def then(ended):
            trials = sweep.submit(wanted.then(ended))
            controller.ledger.describe(wanted.node(), wanted.trace())
            return trials

        controller.run(sweep.submit(wanted.first()), then)
    return sweep.events.file.getvalue()


def ledger(here):
    return json.loads((here / "sweeps" / "greedy" / "ledger.json").read_text())


def trace(here):
    return ledger(here)["search"]


def rounds(here):
    return [(step["start"], step["best"], step["kept"]) for step in trace(here)["rounds"]]


def trained(here):
    return [line.split()[0] for line in steps(here / "journal")]


def test_the_best_of_each_round_is_kept_until_none_is_left(here):
    search(here)
    assert rounds(here) == [("a", "a_c", True), ("a_c", "a_c_d", True), ("a_c_d", "a_b_c_d", True)]
    assert trace(here)["selected"] == "a_c_d"  # the best set seen, not the last
    assert trace(here)["rounds"][0]["ranked"] == ["a_c", "a_d", "a_b"]
    assert trained(here) == ["a", "a+b", "a+c", "a+d", "a+b+c", "a+c+d", "a+b+c+d"]  # in canonical order, once each
    assert "round 1: a_c is best, score 4.00, +3.00 over a; kept" in search(here)


def test_a_second_time_nothing_is_trained_and_all_is_decided_again(here):
    search(here)
    before, told = trained(here), trace(here)
    search(here)
    assert trained(here) == before and trace(here) == told


def test_a_killed_search_goes_on_where_it_was(here, monkeypatch):
    def stop(self, *arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RoundRobin, "decide", stop)
        with pytest.raises(KeyboardInterrupt):
            search(here)
    assert trained(here) == ["a", "a+b", "a+c", "a+d"]
    search(here)
    assert sorted(trained(here)) == sorted(set(trained(here))) and trace(here)["selected"] == "a_c_d"


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (min_improvement(0.5), [("a", "a_c", True), ("a_c", "a_c_d", True), ("a_c_d", "a_b_c_d", False)]),
        (min_improvement(0.51), [("a", "a_c", True), ("a_c", "a_c_d", False)]),
        (min_improvement(5), [("a", "a_c", False)]),
    ],
)
def test_a_round_that_does_not_improve_enough_ends_the_search(here, stop, expected):
    search(here, stop=stop)
    assert rounds(here) == expected
    assert trace(here)["selected"] == (expected[-1][0] if not expected[-1][2] else expected[-1][1])


def test_an_improvement_within_the_noise_of_seeds_ends_the_search(here):
    quiet = {"a": [1, 1.1], "a+b": [2, 2.1], "a+c": [4, 4.1], "a+d": [3, 3.1], "a+c+d": [4.2, 4.3]}
    noisy = {"a": [1, 1.1], "a+b": [2, 5], "a+c": [4, 2], "a+d": [3, 0], "a+b+c": [4, 3], "a+b+d": [4, 4]}
    for scores, kept in ((quiet, True), (noisy, False)):
        root = here / str(kept)
        root.mkdir()
        parts.write_landscape(here, scores)
        search(root, seeds=(0, 1), stop=SEED_NOISE)
        first = trace(root)["rounds"][0]
        assert first["kept"] is kept and first["needed"] > 0
        assert (first["improvement"] > first["needed"]) is kept


def test_equal_means_are_decided_by_cost_and_then_by_order(here):
    names = ["bbb", "cc", "dd"]
    parts.write_landscape(here, {"a": 1, **{f"a+{name}": 2 for name in names}})
    shown = search(here, candidates=names, stop=min_improvement(0))
    assert trace(here)["rounds"][0]["ranked"] == ["a_cc", "a_dd", "a_bbb"]  # 10 tokens a letter
    assert trace(here)["rounds"][0]["tied"] == ["a_cc", "a_dd", "a_bbb"]
    assert "as good as a_dd, a_bbb, chosen by cost" in shown


def test_all_subsets_show_the_regret_of_the_greedy_path(here):
    search(here, exhaustive=True)
    found = trace(here)["exhaustive"]
    assert [(size["best"], size["greedy"], size["regret"]) for size in found["sizes"]] == [
        ("a", "a", 0.0),
        ("a_c", "a_c", 0.0),
        ("a_b_d", "a_c_d", 1.5),
        ("a_b_c_d", "a_b_c_d", 0.0),
    ]
    assert (found["best"], found["regret"]) == ("a_b_d", 1.5)
    assert len(trained(here)) == len(set(trained(here))) == 8


def test_a_search_can_start_from_nothing(here):
    parts.write_landscape(here, {"a": 1, "b": 3, "a+b": 2})
    search(here, base=[], candidates=["a", "b"], stop=min_improvement(0))
    assert rounds(here) == [(None, "b", True), ("b", "a_b", False)]
    assert trace(here)["selected"] == "b"


def test_a_candidate_that_fails_is_left_out_said_and_can_be_tried_again(here):
    parts.write_landscape(here, {**SCORES, "a+c": "raise"})
    assert "round 1: a_c is left out, failed: stage train: RuntimeError: the stage broke" in search(here)
    assert rounds(here)[0] == ("a", "a_d", True)
    assert trace(here)["rounds"][0]["ranked"][-1] == "a_c"
    parts.write_landscape(here, SCORES)
    search(here)
    assert rounds(here)[0] == ("a", "a_d", True)
    search(here, retry_failed=True)
    assert rounds(here)[0] == ("a", "a_c", True)


def test_overrides_around_the_list(here):
    search(here, overrides=["bonus=1"], overrides_by_size={1: ["bonus=10"]})
    means = {name: found["mean"] for name, found in trace(here)["sets"].items()}
    assert means["a"] == 11 and means["a_c"] == 5
    assert ledger(here)["sweep"]["rows"]["a"]["overrides"] == ["parts=[a]", "bonus=10"]


def test_published_numbers_are_told_to_the_report(here):
    search(here, sets=[{"set": ["c", "a"], "published": {"score": 5}, "note": "x"}])
    rows = ledger(here)["sweep"]["rows"]
    assert rows["a_c"]["published"] == {"score": 5}
    assert list(rows)[:4] == ["a", "a_b", "a_c", "a_d"]


def test_results_without_the_metric_end_the_search(here):
    with pytest.raises(UserError, match=r"results have no 'scoer'; did you mean 'score'"):
        search(here, metric="scoer")


def test_the_upper_bound_counts_what_can_come(here):
    assert strategy(here).at_most() == 1 + 3 + 2 + 1
    assert strategy(here, exhaustive=True).at_most() == 8
    assert strategy(here, base=[], exhaustive=True).at_most() == 7
    assert strategy(here, base=[]).at_most() == 3 + 2 + 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"candidates": ["b", "a"]}, r"sweep.search.candidates: 'a' is in sweep.search.base; name it once"),
        ({"candidates": ["b", "b"]}, r"sweep.search.candidates: 'b' is there twice"),
        ({"candidates": []}, "there are none"),
        ({"candidate": ["b"]}, r"sweep.search.candidate: .* has no such argument; did you mean 'candidates'"),
        ({"stop": "exhausted"}, "sweep.search.stop: 'exhausted' must be a mapping"),
        ({"stop": {"_target_": f"{RULES}.Exhaus"}}, "did you mean 'Exhaust'"),
        ({"stop": SEED_NOISE}, "seed_noise 0.95 needs 2 seeds"),
        ({"stop": min_improvement(-1)}, "amount: -1 must not be below 0"),
        ({"overrides": ["parts=[b]"]}, "parts is set by the search"),
        ({"overrides_by_size": {7: ["trainer=default"]}}, "sizes 1 to 4"),
        ({"sets": [{"set": ["a", "x"]}]}, r"sweep.search.sets\[0\]: 'x' is not a candidate"),
        ({"sets": [{"set": ["b"]}]}, "every set of this search has a"),
        ({"candidates": ["b", "b_c", "c_d", "d"]}, "would both be the row 'a_b_c_d'"),
    ],
)
def test_mistakes_in_the_node(here, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        strategy(here, **changes)
    assert len(str(caught.value).splitlines()) == 1


def test_findings_name_sets_that_there_can_be(here):
    strategy(here, findings=[{"check": "a_b_d.score > a.score and a.score > blind.score"}])
    with pytest.raises(UserError, match=r"sweep.findings\[0\]: .*row 'a_b_e'; did you mean 'a_b"):
        strategy(here, findings=[{"check": "a_b_e.score > a.score"}])


FILES = {
    "sweeps/greedy.yaml": """\
# @package _global_
# Which parents help?
defaults:
  - override /experiments: fake
sweep:
  metric: score
  seeds: [0]
  search:
    _target_: mmexp.sweeping.search.round_robin.RoundRobin
    key: recipe.stages.finetune.parents
    base: [a]
    candidates: [b]
    stop: {_target_: mmexp.sweeping.search.stop_rule.Exhaust}
""",
    "conf/recipe/blind.yaml": "# No images.\ndefaults: [fake]\nuse_images: false\n",
    "a/product.txt": "a",
    "b/product.txt": "b",
}


def sweep(*arguments, dry_run=False):
    """The whole way, with composing; returns the ledger, or what a dry run shows."""
    shown = io.StringIO()
    order = Order(
        scale="paper",
        arguments=["sweeps=greedy", *arguments],
        launcher=InlineLauncher(),
        dry_run=dry_run,
        retry_failed=False,
        report=lambda folder, console: None,
        validate=lambda config: None,
        console=Console(file=shown, width=150),
    )
    folder = run_sweep(order)
    return json.loads((folder / "ledger.json").read_text()) if folder else shown.getvalue()


def test_the_sweep_file_chooses_the_search(here, monkeypatch):
    monkeypatch.chdir(fakes.write_user_folders(here))
    monkeypatch.setattr("mmexp.sweeping.session.share_features", lambda trials: None)
    monkeypatch.setattr("mmexp.sweeping.spec.sweep.BLIND_SCALE", "paper")
    for name, text in FILES.items():
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(text)
    for argument, message in MISTAKES.items():
        with pytest.raises(UserError, match=message):
            sweep(*argument.split())
    assert "at most 3 trials" in sweep(dry_run=True)
    assert not (here / "mmexp_out").exists()
    found = sweep()
    assert [entry["row"] for entry in found["trials"]] == ["a", "a_b", "blind"]
    assert found["search"]["rounds"][0]["best"] == "a_b" and found["sweep"]["baseline"] == "a"


MISTAKES = {
    "recipe.stages.finetune.parents=[b]": "is searched over, so the command line cannot set it",
    "recipe.value=1,2": "a round-robin search varies recipe.stages.finetune.parents only",
    "++sweep.only=[a]": "sweep.only: RoundRobin has no use for it",
    "++sweep.search._target_=mmexp.sweeping.search.round_robin.RoundRobi": "did you mean 'RoundRobin'",
    "++sweep.search.key=recipe.stages.finetune.parent": "there is no .*; did you mean 'parents'",
    "++sweep.search.key=recipe.last": "recipe.last is not a list",
    "++sweep.search.key=encoder ++sweep.search.base=[clip] ++sweep.search.candidates=[sm]": (
        "no encoder 'sm' at scale paper; did you mean 'sam'"
    ),
}


def test_the_noise_of_two_sets_is_a_paired_t_test():
    """With two sets the rule is the one-sided paired t-test over seeds."""
    import numpy as np
    from scipy import stats

    from mmexp.statistics.seed_noise import noise_of_seeds

    first, second = [1.0, 3.0, 2.5], [2.0, 3.5, 4.5]
    gain = np.array(second) - np.array(first)
    expected = stats.t.ppf(0.95, 2) * gain.std(ddof=1) / math.sqrt(3)
    assert noise_of_seeds([first, second], 1, 0.95) == pytest.approx(expected)
    assert noise_of_seeds([first, second], 5, 0.95) > expected
    assert noise_of_seeds([first], 1, 0.95) == noise_of_seeds([], 1, 0.95) == math.inf
