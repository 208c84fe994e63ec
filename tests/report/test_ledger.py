"""The seam to the sweep's ledger: what the controller writes is what the report reads."""

import json

import pytest

from mmexp.errors import UserError
from mmexp.files import DONE, NOT_SELECTED
from mmexp.report.build import load_report, report
from mmexp.report.results import load_sweep
from mmexp.sweeping.engine import ledger as written
from mmexp.sweeping.workers import task as work
from tests.report.synthetic import sweep


def entry(trial, **changes):
    values = {
        "row": trial.row,
        "axes": dict(trial.axes),
        "seed": trial.seed,
        "overrides": [*trial.overrides, f"seed={trial.seed}"],
        "key": trial.key,
        "stage_keys": {},
        "status": trial.status,
        "reason": trial.reason,
        "log_tail": trial.log_tail,
        "folder": str(trial.folder) if trial.folder else None,
    }
    return values | changes


@pytest.fixture
def folder(tmp_path):
    """A sweep's folder with a real ledger: one row failed, one was left out."""
    results = sweep(tmp_path, {"a": 0.4, "b": 0.6, "c": 0.5}, seeds=(0, 1))
    place = tmp_path / "sweeps" / "demo"
    head = written.Head(name="demo", scale="lab", sweep=results.node, command=("sweeps=demo",))
    ledger = written.Ledger(place, head)
    empty = {"folder": None, "log_tail": "end"}
    ledger.trials = [entry(trial) for trial in results.trials if trial.row != "c"]
    ledger.trials += [entry(trial, status=work.FAILED, reason="exit 1", **empty) for trial in results.trials[4:5]]
    ledger.trials += [entry(trial, status=written.NOT_SELECTED, **empty) for trial in results.trials[5:]]
    ledger.save()
    return place


def test_statuses_are_the_ledgers():
    assert (DONE, NOT_SELECTED) == (work.DONE, written.NOT_SELECTED)


def test_reading(folder):
    results = load_sweep(folder)
    assert (results.name, results.scale, results.node["metric"]) == ("demo", "lab", "overall")
    assert [(trial.row, trial.seed) for trial in results.trials][:3] == [("a", 0), ("a", 1), ("b", 0)]
    assert results.trials[0].metrics["overall"] > 0


def test_report_from_the_ledger(folder, tmp_path):
    found = load_report(folder)
    assert [line.label for line in found.lines] == ["a", "b", "c"]
    assert found.lines[0].overrides == ("projector=a",)
    assert [(failure.label, failure.reason, failure.log_tail) for failure in found.failures] == [("c", "exit 1", "end")]
    assert any("Left out by sweep.only" in note for note in found.notes)
    assert {path.parent for path in report(folder).values()} == {folder}
    assert report(folder, tmp_path / "out")["report.html"].is_file()


def test_ledgers_that_cannot_be_read(folder, tmp_path):
    with pytest.raises(UserError, match=r"no ledger; run 'mmexp sweep' first"):
        load_report(tmp_path)
    path = folder / "ledger.json"
    whole = json.loads(path.read_text())
    for broken in ("{", "[]", json.dumps({"name": "x"}), json.dumps(whole | {"trials": [{"row": "a"}]})):
        path.write_text(broken)
        with pytest.raises(UserError, match=r"ledger.json: not readable") as caught:
            load_report(folder)
        assert "\n" not in str(caught.value)
