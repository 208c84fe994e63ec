"""The page of an Optuna search."""

import io
import json
import re

import pytest
from rich.console import Console

from mmexp.report.study import best, history, pareto, show_study, to_html, to_markdown


def trial(number, state, values, **changes):
    facts = {"intermediate": {}, "constraints": {}, "reason": "", "same_as": None, "params": {"projector": "linear"}}
    return {"number": number, "row": f"trial_{number:04d}", "state": state, "values": values, **facts, **changes}


@pytest.fixture
def record():
    trials = [
        trial(0, "done", [40.0, 16.0]),
        trial(1, "done", [50.0, 36.0]),
        trial(2, "done", [39.0, 36.0], params={"projector": "<b>x</b>"}),
        trial(3, "infeasible", None, reason="visual_tokens 81, not visual_tokens <= 36"),
        trial(4, "pruned", None, intermediate={"50": 12.0}, reason="val 12 at step 50"),
    ]
    return {
        "name": "x",
        "scale": "lab",
        "study": "lab/x",
        "storage": "study.journal",
        "sampler": "nsga2",
        "pruner": None,
        "n_trials": 5,
        "size": None,
        "space": {"projector": "linear, mlp"},
        "objectives": [
            {"metric": "overall", "direction": "maximize"},
            {"metric": "visual_tokens", "direction": "minimize"},
        ],
        "constraints": ["visual_tokens <= 36"],
        "trials": trials,
        "best": [0, 1],
    }


def test_figures_show_the_best_so_far_and_the_pareto_set(record):
    assert history(record)["data"][1]["y"] == [40.0, 50.0, 50.0]
    assert history(record)["data"][2]["y"] == [12.0]
    beaten, front = pareto(record)["data"]
    assert (front["x"], front["y"]) == ([16.0, 36.0], [40.0, 50.0]) and beaten["x"] == [36.0]
    assert [one["number"] for one in best(record)] == [1, 0]


def test_the_page_is_self_contained_and_escapes(record):
    page = to_html(record)
    assert "<b>x</b>" not in page and not re.search(r"<(script|link)[^>]+(src|href)=", page)
    assert "visual_tokens 81, not visual_tokens &lt;= 36" in page
    markdown = to_markdown(record)
    assert "## Pareto set" in markdown and "| trial_0003 | infeasible |" in markdown


def test_it_is_written_beside_the_report_and_said(record, tmp_path):
    shown = io.StringIO()
    show_study(tmp_path, Console(file=shown))
    assert not shown.getvalue() and not list(tmp_path.iterdir())
    (tmp_path / "ledger.json").write_text(
        json.dumps({"name": "x", "scale": "lab", "search": {"kind": "optuna", **record}})
    )
    show_study(tmp_path, Console(file=shown, width=200))
    assert {path.name for path in tmp_path.iterdir()} == {"ledger.json", "study.html", "study.md"}
    assert "Pareto set of 3 done, 1 infeasible, 1 pruned" in shown.getvalue()
    assert "optuna-dashboard study.journal" in shown.getvalue()
