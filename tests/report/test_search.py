import io
from dataclasses import replace

import pytest
from rich.console import Console

from mmexp.report import search
from mmexp.report.files import to_json, to_markdown
from mmexp.report.html import to_html
from mmexp.report.plots import figures
from mmexp.report.table import Report
from mmexp.report.terminal import print_report


def found(members, mean, **more):
    return {"members": members, "mean": mean, "std": None, "values": {}, "costs": {"visual_tokens": 64}, **more}


TRACE = {
    "kind": "round_robin",
    "key": "encoder",
    "metric": "overall",
    "stop": "min_improvement 1",
    "sets": {
        "a": found(["a"], 50.0, std=0.5),
        "a_b": found(["a", "b"], 60.0),
        "a_c": found(["a", "<c>"], None, problem="failed: out of memory"),
        "a_d": found(["a", "d"], 55.0),
        "a_b_d": found(["a", "b", "d"], 60.2),
    },
    "rounds": [
        {
            "start": "a", "tried": ["a_b", "a_c", "a_d"], "ranked": ["a_b", "a_d", "a_c"], "best": "a_b", "kept": True,
            "tied": [], "improvement": 10.0, "needed": 1.0,
        },
        {
            "start": "a_b", "tried": ["a_b_d"], "ranked": ["a_b_d"], "best": "a_b_d", "kept": False,
            "tied": ["a_b_d", "a_b_e"], "improvement": 0.2, "needed": 1.0,
        },
    ],
    "selected": "a_b",
    "why": "no candidate is better",
    "exhaustive": {
        "sizes": [{"size": 2, "best": "a_d", "greedy": "a_b", "regret": 1.25}], "best": "a_d", "regret": 1.25,
    },
}  # fmt: skip


@pytest.fixture
def report():
    return Report(
        name="x", scale="lab", source="", metric="overall", baseline=None, columns=("overall",), families=(), lines=(),
        findings=(), failures=(), curves=(), best=None, best_over_blind=None, kendall_tau={}, search=TRACE,
    )  # fmt: skip


def test_the_path_is_the_top_line_of_the_picture():
    tried, kept, points = search.tree_figure(TRACE)["data"]
    assert kept["x"] == [0, 1, None] and kept["y"] == [0, 0, None]
    assert len(tried["x"]) == 3 * 3
    assert list(zip(points["x"], points["y"], strict=True)) == [(0, 0), (1, 0), (1, -1), (1, -2), (2, 0)]
    assert points["text"][1] == "+ b<br><b>60.00</b>" and points["marker"]["color"][1] == search.SELECTED
    assert points["text"][3].startswith("+ &lt;c&gt;") and points["marker"]["color"][3] == search.MISSING
    assert "out of memory" in points["hovertext"][3]


def test_every_form_of_the_report_has_the_tree(report):
    page = to_html(report)
    assert 'id="plot-search"' in page and "regret 1.25 of the result" in page and "<c>" not in page
    assert "  - **+ b  60.00  <- result**\n    - + d  60.20" in to_markdown(report)
    assert '"selected": "a_b"' in to_json(report)
    shown = io.StringIO()
    print_report(report, Console(file=shown, width=100))
    assert "+ b  60.00  <- result" in shown.getvalue() and "round 2: +0.20, needed 1.00" in shown.getvalue()
    assert "equal means, decided by cost: a_b_d, a_b_e" in shown.getvalue()


def test_a_search_that_runs_has_a_tree_of_what_is_known(report):
    sets = {name: found(node["members"], None) for name, node in TRACE["sets"].items()}
    running = {**TRACE, "sets": sets, "rounds": [{"start": None, "tried": ["a", "a_b"]}], "selected": None, "why": ""}
    running.pop("exhaustive")
    made = replace(report, search=running)
    assert "search" in figures(made) and "(nothing)" in to_markdown(made)


def test_a_table_has_no_tree(report):
    for other in ({}, {"kind": "optuna", "rounds": [1]}, {"kind": "round_robin", "rounds": []}):
        made = replace(report, search=other)
        assert "search" not in figures(made) and "## Search" not in to_markdown(made)
