import os
import time

import pytest

from mmexp.cli.store import main
from mmexp.errors import UserError
from mmexp.stages.inventory import delete, explain_key, garbage, inventory
from mmexp.stages.store import Store
from mmexp.statistics import numbers
from tests.fakes import run_graph
from tests.sweeping.tables import ROWS, results, run, trials


@pytest.fixture
def root(tmp_path):
    """A sweep of one and two, of which two has left the table, and a run of three beside it."""
    run(tmp_path, trials(tmp_path, {row: ROWS[row] for row in ("one", "two")}))
    run(tmp_path, trials(tmp_path, {"one": ROWS["one"]}))
    alone = trials(tmp_path, {"three": ROWS["three"]})[0]
    run_graph(alone.graph, Store.from_config(alone.config), alone.context(None))
    return tmp_path


def items(root, days=0.0, runs=False, collected=True):
    store = Store.from_config(trials(root, ROWS)[0].config)
    found = inventory(store, root / "sweeps")
    return garbage(store, found, days, runs) if collected else found


def test_everything_that_is_there_is_listed_with_who_needs_it(root):
    users = {(item.name, item.used_by) for item in items(root, collected=False)}
    names = [item.name for item in items(root, collected=False)]
    assert sorted(names) == ["align", "base", *["evaluate"] * 3, *["finetune"] * 3]
    runs = [f"run {key}" for key in sorted(results(root))]
    assert ("base", (*runs, "sweep test")) in users
    assert all(item.size > 0 and item.finished for item in items(root, collected=False))


def test_what_a_ledger_refers_to_is_never_garbage(root):
    assert items(root) == []
    left = {item.name for item in items(root, runs=True)}
    assert left == {"finetune", "evaluate"}  # of the run beside the sweep; rows that were removed are kept
    before = results(root)
    for item in items(root, runs=True):
        delete(item)
    assert len(results(root)) == len(before) - 1 and items(root, runs=True) == []
    _, shown = run(root, trials(root, {row: ROWS[row] for row in ("one", "two")}))
    assert "started" not in shown


def test_stages_without_a_run_and_dead_beginnings_are_garbage_after_a_while(root):
    trial = trials(root, {"four": {"value": 4}})[0]
    store = Store.from_config(trial.config)
    claim, workdir = store.acquire(trial.graph.stages["finetune"], print)
    (workdir / "checkpoint").write_text("x" * 2000)
    assert items(root) == []  # its owner lives
    store.give_up(claim, workdir, discard=False)
    assert [item.finished for item in items(root)] == [False]
    assert items(root, days=1) == []
    old = time.time() - 2 * 86_400
    os.utime(workdir / "checkpoint", (old, old))
    assert len(items(root, days=1)) == 1


def test_an_unreadable_ledger_stops_cleaning(root):
    (root / "sweeps" / "test" / "ledger.json").write_text("{")
    with pytest.raises(UserError, match=r"ledger.json: not readable, so what it refers to is not known"):
        items(root)


def test_a_key_is_explained_by_the_nearest_other_one(root):
    one, three = (trials(root, {row: ROWS[row]})[0].graph.stages["finetune"].key for row in ("one", "three"))
    store = Store.from_config(trials(root, ROWS)[0].config)
    lines = explain_key(store, root / "sweeps", three[:8])
    assert lines[0].startswith(f"finetune {three}: finished: ")
    assert any(line.startswith("    value: ") and line.endswith(" there, 3 here") for line in lines)
    assert any("used by sweep test" in line for line in explain_key(store, root / "sweeps", one))
    for start, message in (("zzzzzz", "no key begins with 'zzzzzz'"), (one[:2], "no key begins")):
        with pytest.raises(UserError, match=message):
            explain_key(store, root / "sweeps", start)


def test_the_command(root, monkeypatch, capsys):
    monkeypatch.setattr(
        "mmexp.cli.store.places", lambda *_: (Store.from_config(trials(root, ROWS)[0].config), root / "sweeps")
    )
    assert main(["ls"]) == 0 and "8 entries" in capsys.readouterr().out
    main(["gc", "--runs", "days=0"])
    assert "2 entries" in (out := capsys.readouterr().out) and "could be deleted" in out
    assert len(results(root)) == 3
    main(["gc", "--runs", "--delete", "days=0"])
    assert len(results(root)) == 2
    for arguments, message in (
        (["lss"], "no 'lss'; did you mean 'ls'"),
        (["explain"], "give a key"),
        (["gc", "days=x"], "a number of days"),
    ):
        with pytest.raises(UserError, match=message):
            main(arguments)
    assert numbers.size(1_234_567) == "1.2 MB"
