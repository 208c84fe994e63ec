"""``mmexp eval`` on a benchmark that needs a stage which the run was not made from."""

import pytest

from mmexp.cli.eval import further_stages
from mmexp.errors import UserError
from mmexp.stages.graph import build_graph
from mmexp.stages.store import Store
from tests.fakes import config


def test_stages_that_only_the_benchmark_needs_are_made_with_the_runs_own_settings(tmp_path) -> None:
    """The clips come from today's config, what they are made from is the run's."""
    run, today = config(tmp_path), config(tmp_path, seed=7)
    base = today["lab"]["stages"]["base"]
    stages = {"base": base | {"value": 9}, "clips": base | {"value": 5, "parents": ["stage:base"]}}
    chosen = {"lab": {"stages": stages}, "benchmarks": {"v": {"annotations": "stage:clips/test.jsonl"}}}
    store = Store.from_config(run)
    keys = further_stages(run, chosen, store)
    assert store.find(keys["clips"]) is not None
    assert keys["base"] == build_graph(run).keys["base"]
    assert further_stages(run, chosen, store) == keys
    with pytest.raises(UserError, match="no stage 'clip'; did you mean 'clips'"):
        further_stages(run, {**chosen, "benchmarks": {"v": {"annotations": "stage:clip/test.jsonl"}}}, store)


def test_what_the_run_was_made_from_is_left_to_its_result(tmp_path) -> None:
    run = config(tmp_path)
    chosen = {"benchmarks": {"v": {"annotations": "stage:base/test.jsonl"}}}
    assert further_stages(run, chosen, Store.from_config(run)) == {}
    assert not (tmp_path / "store").exists()
