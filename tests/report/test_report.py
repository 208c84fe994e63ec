"""The whole report: order, failures, escaping, determinism, files, terminal."""

import csv
import dataclasses
import io
import json
import re
import subprocess
import sys

import pytest
from rich.console import Console

from mmexp.evaluation.result import read_result, write_result
from mmexp.report.build import write_report
from mmexp.report.html import to_html
from mmexp.report.results import SweepResults
from mmexp.report.table import tabulate
from mmexp.report.terminal import print_report
from tests.report.synthetic import sweep, trial

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    found = sweep(
        folder,
        {"linear": 0.5, "mlp": 0.65, "twin": 0.5, "blind": 0.2},
        source={"paper": "arXiv:2310.03744", "table": "2"},
        findings=[{"id": "mlp", "claim": EVIL, "check": "mlp.overall > linear.overall", "source": "Table 2"}],
    )
    rows = {"linear": {}, "broken": {}, "mlp": {}, "twin": {}}
    failed = [trial("broken", s, None, status="failed", reason=f"exit 1 {EVIL}", log_tail=EVIL) for s in (0, 1)]
    return dataclasses.replace(found, node=dict(found.node) | {"rows": rows}, trials=(*found.trials, *failed))


@pytest.fixture(scope="module")
def report(results):
    return tabulate(results)


def line(report, label):
    return next(line for line in report.lines if line.label == label)


def test_rows_are_in_the_order_of_the_sweep_file(report):
    assert [line.label for line in report.lines] == ["linear", "broken", "mlp", "twin", "blind"]
    assert report.columns[0] == "overall"
    assert set(report.columns[1:]) == set(report.families)
    assert (report.best, report.baseline, report.is_lab) == ("mlp", "linear", True)


def test_truth_is_told(report):
    assert line(report, "mlp").significant
    assert line(report, "mlp").difference.low > 0
    assert not line(report, "twin").significant
    assert line(report, "linear").difference is None
    assert line(report, "blind").difference.high < 0
    assert report.best_over_blind.low > 30
    assert report.findings[0].verdict == "holds"
    summary = line(report, "mlp").metrics["overall"]
    assert (summary.n, len(summary.values)) == (3, 3)
    assert summary.mean == pytest.approx(sum(summary.values) / 3)
    assert {curve.stage for curve in report.curves} == {"align", "finetune"}
    assert line(report, "mlp").costs == {
        "visual_tokens": 64,
        "projector_parameters": 50_000,
        "parameters": 1_234_567,
        "step_ms": 81.25,
        "seconds": 51.5,
    }


def test_failures_are_listed_and_not_counted(report):
    assert [(failure.label, failure.seed) for failure in report.failures] == [("broken", 0), ("broken", 1)]
    assert line(report, "broken").metrics == {}
    assert line(report, "broken").difference is None


def test_page_is_escaped_and_self_contained(report):
    page = to_html(report)
    own = page.replace(_plotly(page), "")
    assert EVIL not in page
    assert own.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5
    assert "scale lab: findings about the lab, not about the papers" in own
    assert page.count("plotly.js v") == 1
    assert not re.search(r'(src|href)="', own)
    assert "<details>" in own


def test_evil_names_do_not_leave_the_figures(results):
    renamed = [
        dataclasses.replace(t, row=f"{EVIL}</script>", log_tail="") if t.row == "mlp" else t for t in results.trials
    ]
    evil = tabulate(dataclasses.replace(results, trials=tuple(renamed), name=EVIL))
    page = to_html(evil)
    assert EVIL not in page
    figures = page.split('id="figures">', 1)[1].split("</script>", 1)[0]
    assert "&lt;script&gt;" in json.dumps(json.loads(figures)["bars"]["data"][0]["y"])


def _plotly(page):
    start = page.index("/**\n* plotly.js") if "/**\n* plotly.js" in page else page.index("plotly.js v")
    return page[start : page.index("</script>", start)]


def test_output_is_deterministic(results, report, tmp_path):
    fresh = tabulate(dataclasses.replace(results, trials=tuple(dataclasses.replace(t) for t in results.trials)))
    one, two = write_report(report, tmp_path / "one"), write_report(fresh, tmp_path / "two")
    assert sorted(one) == ["report.csv", "report.html", "report.json", "report.md"]
    for name in one:
        assert one[name].read_bytes() == two[name].read_bytes()
    assert len(list((tmp_path / "one").iterdir())) == 4


def test_files(report, tmp_path):
    paths = write_report(report, tmp_path)
    rows = list(csv.DictReader(io.StringIO(paths["report.csv"].read_text())))
    assert [row["row"] for row in rows] == ["linear", "broken", "mlp", "twin", "blind"]
    assert float(rows[2]["overall_mean"]) == pytest.approx(line(report, "mlp").metrics["overall"].mean)
    assert rows[1]["overall_mean"] == ""
    plain = json.loads(paths["report.json"].read_text())
    assert plain["findings"][0]["verdict"] == "holds"
    assert plain["lines"][2]["difference"]["low"] > 0
    markdown = paths["report.md"].read_text()
    assert "| mlp | 3 | +" in markdown
    assert "<script>" not in markdown


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_terminal_fits(report, width):
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    print_report(report, console)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= min(width, 100)
    assert "mlp" in text
    assert "not about the papers" in text
    assert "broken seed 0" in text


def test_published_numbers_and_rank_agreement_only_at_scale_paper(results):
    published = {"linear": 50.0, "mlp": 60.0, "twin": 40.0, "broken": 70.0}
    rows = {row: {"published": {"overall": number}} for row, number in published.items()}
    node = dict(results.node) | {"rows": rows}
    lab = tabulate(dataclasses.replace(results, node=node))
    paper = tabulate(dataclasses.replace(results, node=node, scale="paper"))
    assert all(not line.published for line in lab.lines)
    assert lab.kendall_tau == {}
    assert line(paper, "mlp").published == {"overall": 60.0}
    means = [line(paper, row).metrics["overall"].mean for row in ("twin", "linear", "mlp")]
    assert paper.kendall_tau == {"overall": pytest.approx(1.0 if means == sorted(means) else 1 / 3)}
    page = to_html(paper)
    assert "not about the papers" not in page
    assert "60.0" in page
    assert "<th>paper</th>" in page


def test_axes_make_lines(results):
    trials = [dataclasses.replace(t, axes={"llm": "base" if t.seed == 0 else "large"}) for t in results.trials]
    found = tabulate(dataclasses.replace(results, trials=tuple(trials)))
    assert [line.label for line in found.lines][:2] == ["linear [llm=base]", "linear [llm=large]"]
    assert found.baseline == "linear [llm=base]"


def test_broken_files_cost_their_trial_only(tmp_path):
    results = sweep(tmp_path, {"a": 0.5, "b": 0.6, "c": 0.7, "d": 0.5}, seeds=(0, 1))
    by_row = {found.row: found.folder for found in results.trials if found.seed == 1}
    (by_row["a"] / "result.json").write_text("{")
    (by_row["b"] / "predictions.parquet").write_text("not parquet")
    (by_row["c"] / "metrics.jsonl").write_text('{"step": 1, "loss": 2}\n{"step": 2, "lo')
    result = read_result(by_row["d"])
    write_result(by_row["d"], result | {"metrics": result["metrics"] | {"overall": float("nan")}})
    report = tabulate(results)
    assert [(f.label, f.seed) for f in report.failures] == [("a", 1)]
    assert "result.json is missing or not readable" in report.failures[0].reason
    assert line(report, "a").metrics["overall"].n == 1
    assert line(report, "b").metrics["overall"].n == 2
    assert line(report, "d").metrics["overall"].n == 1
    assert line(report, "d").metrics["count"].n == 2
    assert [curve.steps for curve in report.curves if curve.label == "c" and curve.seed == 1] == [(1,)]
    write_report(report, tmp_path / "out")


def test_nothing_finished_yet(tmp_path):
    pending = [trial(row, 0, None, status="pending") for row in "ab"]
    node = {"metric": "overall", "baseline": "a", "rows": {"a": {}, "b": {}}, "findings": [{"check": "a.x > b.x"}]}
    report = tabulate(SweepResults(name="empty", scale="lab", node=node, trials=tuple(pending)))
    assert len(report.failures) == 2
    assert report.best is None
    assert report.findings[0].verdict == "no answer"
    assert any("No trial has the ranking metric" in note for note in report.notes)
    write_report(report, tmp_path)
    print_report(report, Console(file=io.StringIO(), width=80))
    assert tabulate(SweepResults(name="none", scale="lab", node={}, trials=())).lines == ()


def test_report_imports_no_torch_and_no_training():
    code = "import sys, mmexp.report.build, mmexp.report.terminal; print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    for banned in ("'torch'", "'lightning'", "mmexp.training", "'transformers'", "'pandas'", "'scipy'", "'plotly'"):
        assert banned not in modules
