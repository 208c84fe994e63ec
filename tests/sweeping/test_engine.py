import io
import json
import threading
import time
from dataclasses import replace

import pytest
from rich.console import Console

from mmexp.errors import UserError
from mmexp.stages.graph import build_graph
from mmexp.stages.lock import Watch, try_lock
from mmexp.stages.store import Store
from mmexp.sweeping.engine.preview import show_preview
from mmexp.sweeping.engine.scheduler import plan_tasks
from tests import fakes
from tests.fakes import run_graph
from tests.sweeping.tables import ROWS, ledger_of, local, results, run, statuses, steps, trials


@pytest.fixture
def journal(tmp_path, monkeypatch):
    path = tmp_path / "journal"
    path.touch()
    monkeypatch.setenv(fakes.JOURNAL, str(path))
    return path


def test_every_distinct_stage_is_made_once(tmp_path, journal):
    table = trials(tmp_path, ROWS, seeds=(0, 1))
    run(tmp_path, table)
    lines = steps(journal)
    # base 1, align 2 seeds, finetune and evaluate of 3 rows x 2 seeds, 3 steps each
    assert len(lines) == len(set(lines)) == 3 * (1 + 2 + 6 + 6)
    assert set(statuses(tmp_path).values()) == {"done"}
    assert set(results(tmp_path)) == {trial.key for trial in table}


def test_first_seed_comes_first_and_shared_stages_before_what_waits_for_them(tmp_path):
    table = trials(tmp_path, ROWS, seeds=(0, 1))
    order = [
        (task.spec.name, task.trials[0].request.seed) for task in plan_tasks(table, Store.from_config(table[0].config))
    ]
    assert order[:5] == [("base", 0), ("align", 0), ("finetune", 0), ("finetune", 0), ("finetune", 0)]
    assert order[5:8] == [("evaluate", 0)] * 3
    assert order[8] == ("align", 1)


def test_second_time_nothing_is_made(tmp_path, journal):
    table = trials(tmp_path, ROWS)
    run(tmp_path, table)
    before = steps(journal)
    ledger, shown = run(tmp_path, table)
    assert steps(journal) == before
    assert ledger.count("done") == 3 and "started" not in shown


def test_a_trial_of_another_sweep_is_used(tmp_path, journal):
    table = trials(tmp_path, ROWS)
    run_graph(table[0].graph, Store.from_config(table[0].config), table[0].context(None))
    before = steps(journal)
    run(tmp_path, table[:1])
    assert steps(journal) == before
    assert ledger_of(tmp_path)["trials"][0]["folder"] == str(tmp_path / "runs" / table[0].key)


def test_rows_that_are_one_trial_are_said_and_run_once(tmp_path, journal):
    _, shown = run(tmp_path, trials(tmp_path, {"one": {"value": 1}, "again": {"value": 1}}))
    assert "one trial, run once: one, again" in shown
    assert len(steps(journal)) == 12
    assert set(statuses(tmp_path).values()) == {"done"}


@pytest.mark.parametrize(
    ("trouble", "status", "reason"),
    [
        ("raise", "failed", "RuntimeError: the stage broke"),
        ("user", "failed", "data/x.jsonl:3: not a record"),
        ("exit", "failed", "SystemExit: 3"),
        ("hard_exit", "failed", "exit code 5"),
        ("kill", "killed", "SIGKILL"),
        ("hang", "failed", "time limit of 2 s"),
        ("noise", "failed", "RuntimeError: after noise"),
        ("disk", "failed", "No space left on device"),
        ("memory", "failed", "MemoryError"),
    ],
)
def test_a_failure_costs_only_its_trial(tmp_path, trouble, status, reason):
    table = trials(tmp_path, {"good": {}, "bad": {"value": 2, "trouble": trouble}, "fine": {"value": 3}})
    run(tmp_path, table, local(timeout_s=2.0 if trouble == "hang" else None))
    assert statuses(tmp_path) == {("good", 0): "done", ("bad", 0): status, ("fine", 0): "done"}
    bad = ledger_of(tmp_path)["trials"][1]
    assert reason in bad["reason"] and "finetune" in bad["reason"]
    assert bad["log_tail"].isprintable() or set(bad["log_tail"]) & {"\n"}
    assert all(letter.isprintable() or letter == "\n" for letter in bad["log_tail"])
    assert ledger_of(tmp_path)["stages"][table[1].key]["status"] == "blocked"


def test_inline_failures_do_not_end_the_sweep(tmp_path):
    run(tmp_path, trials(tmp_path, {"bad": {"trouble": "exit"}, "good": {"value": 2}}))
    assert statuses(tmp_path) == {("bad", 0): "failed", ("good", 0): "done"}


def test_a_failed_shared_stage_fails_all_who_need_it(tmp_path, journal):
    table = trials(tmp_path, {"a": {}, "b": {"value": 2}})
    for trial in table:
        trial.config["recipe"]["stages"]["align"]["trouble"] = "raise"
    run(tmp_path, [replace(trial, graph=build_graph(trial.config)) for trial in table])
    reasons = {entry["reason"] for entry in ledger_of(tmp_path)["trials"]}
    assert reasons == {"stage align: RuntimeError: the stage broke"}
    assert len(steps(journal)) == 3 + 2


def test_failed_work_is_tried_again_only_when_asked(tmp_path, journal):
    table = trials(tmp_path, {"bad": {"trouble": "once"}})
    run(tmp_path, table)
    before = steps(journal)
    _, shown = run(tmp_path, table)
    assert steps(journal) == before
    assert "retry_failed=true" in shown and statuses(tmp_path) == {("bad", 0): "failed"}
    journal.with_suffix(".again").touch()
    run(tmp_path, table, retry_failed=True)
    assert statuses(tmp_path) == {("bad", 0): "done"}
    assert len(set(steps(journal))) == len(steps(journal)) == 12


def test_killed_work_goes_on_by_itself(tmp_path, journal):
    table = trials(tmp_path, {"bad": {"trouble": "kill"}})
    run(tmp_path, table, local())
    assert statuses(tmp_path) == {("bad", 0): "killed"}
    before = steps(journal)
    run(tmp_path, table, local())
    assert statuses(tmp_path) == {("bad", 0): "killed"}  # killed again, at its last step, which it went on from
    assert steps(journal) == before


def test_rows_that_are_left_out_are_not_run_and_stay_known(tmp_path, journal):
    run(tmp_path, trials(tmp_path, ROWS, only=["two"]))
    assert statuses(tmp_path) == {("one", 0): "not selected", ("two", 0): "done", ("three", 0): "not selected"}
    run(tmp_path, trials(tmp_path, ROWS, only=["one"]))
    assert statuses(tmp_path) == {("one", 0): "done", ("two", 0): "done", ("three", 0): "not selected"}


def test_rows_added_are_run_and_rows_removed_are_remembered(tmp_path, journal):
    run(tmp_path, trials(tmp_path, {"one": {}, "two": {"value": 2}}))
    before = len(steps(journal))
    run(tmp_path, trials(tmp_path, {"two": {"value": 2}, "three": {"value": 3}}))
    assert len(steps(journal)) == before + 6
    assert [entry["row"] for entry in ledger_of(tmp_path)["earlier"]] == ["one"]
    run(tmp_path, trials(tmp_path, {"one": {}}))
    assert sorted(entry["row"] for entry in ledger_of(tmp_path)["earlier"]) == ["three", "two"]


def test_a_row_whose_values_change_is_another_trial(tmp_path):
    run(tmp_path, trials(tmp_path, {"one": {}}))
    run(tmp_path, trials(tmp_path, {"one": {"value": 5}}))
    ledger = ledger_of(tmp_path)
    assert len(ledger["trials"]) == len(ledger["earlier"]) == 1
    assert ledger["trials"][0]["key"] != ledger["earlier"][0]["key"]


def test_a_sweep_has_one_controller(tmp_path):
    claim = try_lock(tmp_path / "sweeps" / "test" / ".owners", "controller", Watch())
    with pytest.raises(UserError, match="is being run by process"):
        run(tmp_path, trials(tmp_path, ROWS))
    claim.release(finished=True)


def test_an_unreadable_ledger_is_said_and_not_overwritten(tmp_path):
    path = tmp_path / "sweeps" / "test" / "ledger.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"trials": [')
    with pytest.raises(UserError, match=r"ledger.json: not readable"):
        run(tmp_path, trials(tmp_path, ROWS))
    assert path.read_text() == '{"trials": ['


def test_a_task_is_frozen_when_it_is_submitted(tmp_path):
    run(tmp_path, trials(tmp_path, {"one": {}}))
    tasks = [path for path in (tmp_path / "sweeps" / "test" / "tasks").iterdir() if "outcome" not in path.name]
    assert {json.loads(path.read_text())["spec"]["name"] for path in tasks} == {"base", "align", "finetune", "evaluate"}


def test_the_sweep_waits_for_a_stage_that_another_process_makes(tmp_path):
    table = trials(tmp_path, {"one": {}})
    store = Store.from_config(table[0].config)
    base = table[0].graph.stages["base"]
    claim, workdir = store.acquire(base, print)

    def finish():
        time.sleep(0.5)
        (workdir / "product.txt").write_text("x")
        store.finish(base, claim, workdir, {"name": "base", "key": base.key})

    thread = threading.Thread(target=finish)
    thread.start()
    _, shown = run(tmp_path, table, local())
    thread.join()
    assert "waiting for process" in shown and "made by another process" in shown
    assert statuses(tmp_path) == {("one", 0): "done"}


def test_dry_run_shows_what_would_be_made(tmp_path, capsys):
    table = trials(tmp_path, ROWS, seeds=(0, 1))
    run(tmp_path, table[:1])
    show_preview(table, Store.from_config(table[0].config), Console(width=120))
    out = capsys.readouterr().out
    assert "6 trials, 1 done; 11 stages and evaluations to make (13 if every trial made its own)" in out
    assert "6 trials" in out and "exists" in out


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    from mmexp.sweeping.engine import scheduler as engine

    def full(*arguments):
        raise OSError(28, "No space left on device", "tasks/x.json")

    monkeypatch.setattr(engine, "write_task", full)
    with pytest.raises(UserError, match=r"tasks/x.json: No space left on device; the same command resumes"):
        run(tmp_path, trials(tmp_path, ROWS))
    assert set(statuses(tmp_path).values()) == {"pending"}


def test_trials_that_follow_from_others_run_in_the_same_batch(tmp_path, journal):
    table = trials(tmp_path, {"one": {}, "two": {"value": 2}, "bad": {"value": 3, "trouble": "raise"}})
    after = {
        "one": trials(tmp_path, {"three": {"value": 4}, "again": {"value": 3, "trouble": "raise"}}),
        "three": trials(tmp_path, {"two": {"value": 2}}),
    }
    told = []

    def then(measured):
        told.append((measured.trial.request.row, measured.status, bool(measured.metrics)))
        return after.get(measured.trial.request.row, ())

    run(tmp_path, table, then=then)
    assert sorted(told) == [
        ("again", "failed", False),
        ("bad", "failed", False),
        ("one", "done", True),
        ("three", "done", True),
        ("two", "done", True),
    ]
    assert statuses(tmp_path)[("again", 0)] == "failed" and statuses(tmp_path)[("three", 0)] == "done"
    assert len(steps(journal)) == len(set(steps(journal)))


def test_what_a_search_decided_is_in_the_ledger(tmp_path):
    ledger, _ = run(tmp_path, trials(tmp_path, {"one": {}}))
    assert "search" not in ledger_of(tmp_path)
    ledger.search = {"kind": "x"}
    ledger.save()
    assert ledger_of(tmp_path)["search"] == {"kind": "x"}


@pytest.mark.parametrize("fork", [True, False])
def test_an_edit_of_the_code_is_said_with_what_it_means(tmp_path, monkeypatch, fork):
    from mmexp.sweeping.engine import scheduler as engine
    from mmexp.sweeping.engine.code_watch import CodeWatch

    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("x = 1")
    monkeypatch.setattr(engine, "CodeWatch", lambda: CodeWatch(tmp_path / "code"))
    monkeypatch.setattr(engine, "LOOK_S", 0.0)

    def edit(measured):
        if measured.trial.request.row == "one":
            (tmp_path / "code" / "a.py").write_text("x = 12")
        return ()

    _, shown = run(tmp_path, trials(tmp_path, ROWS), local(n_jobs=1, fork=fork), then=edit)
    meaning = "use the code that was loaded" if fork else "run the edited code"
    assert shown.count("a.py was edited") == 1 and f"stages that start from now on {meaning}" in shown


def test_a_live_table_has_rows_seeds_the_metric_so_far_and_failures(tmp_path):
    from mmexp.sweeping.engine.display import Display, RowScores

    table = trials(tmp_path, {"good": {}, "bad": {"value": 2, "trouble": "raise"}}, seeds=(0, 1))
    ledger, _ = run(tmp_path, table)
    ledger.head.sweep["metric"] = "score"
    scores = RowScores(ledger)
    mean = sum(results(tmp_path).values()) / 2
    assert scores.rows() == [("good", "2/2", f"{mean:.2f}", ""), ("bad", "0/2", "-", "2 failed")]
    screen = io.StringIO()
    with Display(Console(file=screen, force_terminal=True, width=100)) as display:
        display.show([("finetune of good", (1, 4), 10.0)], 2, 5, 1, 4, 1, scores.metric, scores.rows())
    for text in ("finetune of good", "25%", "left 0:30", "stages 2/5, trials 1/4, 1 failed", "score", "2 failed"):
        assert text in screen.getvalue()


def test_two_sweeps_at_once_on_one_store_make_each_stage_once(tmp_path, journal):
    tables = {
        name: trials(tmp_path, {row: {**ROWS[row], "seconds": 0.1} for row in rows}, seeds=(0, 1))
        for name, rows in (("first", ["one", "two"]), ("second", ["two", "three"]))
    }
    threads = [
        threading.Thread(target=run, args=(tmp_path, table, local()), kwargs={"name": name})
        for name, table in tables.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for name in tables:
        ledger = json.loads((tmp_path / "sweeps" / name / "ledger.json").read_text())
        assert {entry["status"] for entry in ledger["trials"]} == {"done"}
    assert len(steps(journal)) == len(set(steps(journal))) == 45
