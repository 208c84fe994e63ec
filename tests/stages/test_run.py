import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from mmexp.errors import UserError
from mmexp.stages.explain import explain
from mmexp.stages.graph import StageSpec, build_graph
from mmexp.stages.run import TrialContext, check_unchanged, missing_stages, run_stage
from mmexp.stages.store import LostOwnershipError, Store
from tests import fakes
from tests.fakes import run_graph


def setting(root, **changes):
    config = fakes.config(root, **changes)
    graph = build_graph(config)
    context = TrialContext(
        key=graph.key, sweep=None, row="run", tags=[], config=config, choices={"llm": "base"}, stage_keys=graph.keys
    )
    return graph, Store.from_config(config), context


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_a_run_makes_every_stage_and_the_trial(tmp_path):
    graph, store, context = setting(tmp_path)
    folder = run_graph(graph, store, context)
    assert folder == tmp_path / "runs" / graph.key
    assert store.find(graph.keys["align"]) == tmp_path / "store" / graph.keys["align"]
    assert missing_stages(graph, store) == []
    assert not [name for name in files(tmp_path) if ".partial" in name or ".owners" in name]


def test_a_trial_holds_config_curves_and_the_facts_of_its_stages(tmp_path):
    graph, store, context = setting(tmp_path)
    folder = run_graph(graph, store, context)
    assert yaml.safe_load((folder / "config.yaml").read_text()) == context.config
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["base", "align", "finetune"]
    result = json.loads((folder / "result.json").read_text())
    assert result["trial_key"] == graph.key
    assert result["config_choices"] == {"llm": "base"}
    assert set(result["stage_seconds"]) == set(result["stage_keys"]) == {"base", "align", "finetune"}


def test_finished_stages_are_not_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv(fakes.JOURNAL, str(tmp_path / "journal"))
    run_graph(*setting(tmp_path))
    before = (tmp_path / "journal").read_text()
    run_graph(*setting(tmp_path))
    assert (tmp_path / "journal").read_text() == before
    graph, store, _ = setting(tmp_path, value=2)
    assert missing_stages(graph, store) == ["finetune", "evaluate"]


def test_what_only_finished_stages_need_is_not_made(tmp_path):
    graph, store, context = setting(tmp_path)
    run_graph(graph, store, context)
    import shutil

    shutil.rmtree(store.find(graph.keys["base"]))
    shutil.rmtree(store.find(graph.key))
    assert missing_stages(graph, store) == ["evaluate"]


def test_shipped_stages_are_used_and_never_written(tmp_path):
    graph, store, _ = setting(tmp_path / "a")
    run_stage(graph.stages["base"], store, None)
    shipped = tmp_path / "shipped"
    (tmp_path / "a" / "store").rename(shipped)
    before = files(shipped)
    graph, store, context = setting(tmp_path / "b")
    store.shipped.insert(0, shipped)
    assert "base" not in missing_stages(graph, store)
    run_graph(graph, store, context)
    assert files(shipped) == before


def test_a_users_mistake_leaves_nothing_behind(tmp_path):
    graph, store, context = setting(tmp_path, trouble="user")
    with pytest.raises(UserError, match="not a record"):
        run_graph(graph, store, context)
    assert not list((tmp_path / "store").glob("*.partial*"))
    graph, store, context = setting(tmp_path / "new", value=-1)
    with pytest.raises(UserError, match="negative"):
        run_stage(graph.stages["base"], store, context)
        run_stage(graph.stages["align"], store, context)
        run_stage(graph.stages["finetune"], store, context)
    assert graph.keys["finetune"] not in " ".join(files(tmp_path / "new"))


def test_a_constructor_argument_that_does_not_fit_names_the_key(tmp_path):
    config = fakes.config(tmp_path)
    config["lab"]["stages"]["base"]["valu"] = 3
    with pytest.raises(UserError, match=r"lab.stages.base.valu: .*did you mean 'value'"):
        run_stage(build_graph(config).stages["base"], Store.from_config(config), None)
    assert not (tmp_path / "store").exists()


def test_a_broken_stage_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    journal = tmp_path / "journal"
    monkeypatch.setenv(fakes.JOURNAL, str(journal))
    graph, store, context = setting(tmp_path, trouble="once")
    with pytest.raises(RuntimeError, match="not this time"):
        run_graph(graph, store, context)
    (tmp_path / "journal.again").touch()
    run_graph(graph, store, context)
    lines = journal.read_text().splitlines()
    assert len(lines) == len(set(lines)) == 12
    assert json.loads((store.find(graph.keys["finetune"]) / "stage.json").read_text())["attempts"] == 2


def test_a_store_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "store").write_text("a file")
    graph, store, context = setting(tmp_path)
    with pytest.raises(UserError, match="cannot be written"):
        run_graph(graph, store, context)


def test_an_owner_that_was_taken_for_dead_cannot_finish(tmp_path):
    graph, store, _ = setting(tmp_path)
    spec = graph.stages["base"]
    lock, workdir = store.acquire(spec, print)
    lock.path.rename(lock.path.with_name(f"{spec.key}.2"))
    with pytest.raises(LostOwnershipError):
        store.finish(spec, lock, workdir, {})
    assert store.find(spec.key) is None
    lock.release(finished=False)


def test_a_successor_gets_the_folder_under_another_name(tmp_path):
    graph, store, _ = setting(tmp_path)
    spec = graph.stages["base"]
    lock, workdir = store.acquire(spec, print)
    (workdir / "checkpoint").write_text("x")
    store.give_up(lock, workdir, discard=False)
    second, folder = store.acquire(spec, print)
    assert folder != workdir and not workdir.exists() and (folder / "checkpoint").read_text() == "x"
    store.give_up(second, folder, discard=True)
    assert not folder.exists()


RUNNER = """
import sys
from pathlib import Path
from tests.stages.test_run import setting
from tests.fakes import run_graph
run_graph(*setting(Path(sys.argv[1]), seconds=float(sys.argv[2])))
"""


def start(root, seconds, journal):
    return subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(root), str(seconds)],
        env={**os.environ, fakes.JOURNAL: str(journal)},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_concurrent_runs_make_each_stage_once(tmp_path):
    journal = tmp_path / "journal"
    processes = [start(tmp_path, 0.2, journal) for _ in range(3)]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    assert "waiting for" in "".join(errors)
    lines = journal.read_text().splitlines()
    assert len(lines) == len(set(lines)) == 12


def test_whoever_waits_takes_over_from_a_killed_one(tmp_path):
    journal = tmp_path / "journal"
    first = start(tmp_path, 1.0, journal)
    while not journal.exists() or len(journal.read_text().splitlines()) < 2:
        time.sleep(0.01)
    second = start(tmp_path, 0.1, journal)
    time.sleep(0.3)
    first.kill()
    error = second.communicate()[1]
    assert second.returncode == 0, error
    lines = journal.read_text().splitlines()
    assert len(set(lines)) == 12 and len(lines) <= 13
    first.communicate()


def test_explain_says_which_field_makes_another_stage(tmp_path):
    run_graph(*setting(tmp_path))
    graph, store, _ = setting(tmp_path, value=7)
    answers = {answer.name: answer for answer in explain(graph, store)}
    assert answers["align"].folder is not None
    assert [str(found) for found in answers["finetune"].differences] == ["value: 1 there, 7 here"]
    assert [found.field for found in answers["evaluate"].differences] == ["parents.finetune"]


def test_explain_without_anything_near(tmp_path):
    graph, store, _ = setting(tmp_path)
    assert [(answer.folder, answer.nearest) for answer in explain(graph, store)] == [(None, None)] * 4


def test_data_that_changes_before_a_stage_runs_is_not_stored_under_the_old_key(tmp_path):
    captions = tmp_path / "captions.json"
    captions.write_text("[1]")
    config = fakes.config(tmp_path)
    config["lab"]["stages"]["base"]["parents"] = []
    config["lab"]["stages"]["base"]["captions"] = str(captions)
    spec, store = build_graph(config).stages["base"], Store.from_config(config)
    captions.write_text("[1, 2]")
    with pytest.raises(UserError, match=r"stages.base: changed since .*captions: content differs \(captions.json\)"):
        check_unchanged(spec, store)


def test_a_spec_of_an_earlier_version_can_still_be_read():
    value = build_graph(fakes.config(Path("/nowhere"))).last.to_json()
    del value["identities"]
    spec = StageSpec.from_json({**value, "version": 3})
    assert spec.key == value["key"] and spec.identities == {}


def test_the_evaluation_alone_depends_on_an_own_metric(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    metric = tmp_path / "own_metric.py"
    metric.write_text("class Metric: ...\n")
    config = fakes.config(tmp_path)
    config["evaluation"]["benchmarks"] = {"mine": {"metric": {"_target_": "own_metric.Metric"}}}
    before = build_graph(config).keys
    metric.write_text("class Metric:\n    limit = 1\n")
    after = build_graph(config).keys
    assert [name for name in before if before[name] != after[name]] == ["evaluate"]
