"""The report as one self-contained page. Every text from configs, ledgers and models goes through ``escape``."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from mmexp.report import words
from mmexp.report.findings import CONTRADICTED, HOLDS, Finding
from mmexp.report.plots import figures
from mmexp.report.search import is_tree, sentences
from mmexp.report.table import COSTS, Failure, Line, Report
from mmexp.statistics import numbers
from mmexp.statistics.measurements import REPLICATES

VERDICT_CLASS = {HOLDS: "good", CONTRADICTED: "bad"}
PLOT_TITLES = {
    "search": "Search",
    "bars": "Rows",
    "heat": "By question family",
    "curves": "Training loss",
}
METHOD = f"""
Mean {numbers.PLUS_MINUS} standard deviation over seeds. Differences are to the baseline, paired by seed and question:
the 95 % interval draws the questions {REPLICATES} times (the same draw for all rows and seeds) and, for training noise,
a t-distributed error of the mean over seeds with the residual variance of all rows. p-values are corrected
over the rows (Holm); * marks p &lt; 0.05. "n more seeds" is what would shrink the interval
below the difference seen now.
"""


def to_html(report: Report) -> str:
    """The page."""
    made = figures(report)
    sections = [
        _header(report),
        _tiles(report),
        "".join(f'<p class="note">{escape(note)}</p>' for note in report.notes),
        _section("Findings", _findings(report.findings)) if report.findings else "",
        _section("What the search found", _search(report)) if is_tree(report.search) else "",
        _section("Table", _table(report) + f'<p class="method">{METHOD}</p>'),
        *(_section(PLOT_TITLES[name], f'<div class="plot" id="plot-{name}"></div>') for name in made),
        _section("Trials without a result", _failures(report.failures)) if report.failures else "",
        _section("Overrides", _overrides(report)),
    ]
    return page(report.name, [section for section in sections if section], made)


def page(title: str, sections: Sequence[str], made: Mapping[str, Any]) -> str:
    """A self-contained page of sections (HTML), with Plotly figures for their elements ``plot-<name>``."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_static('page.css')}</style></head><body><main>"
        + "\n".join(sections)
        + f'</main><script type="application/json" id="figures">{_script_json(made)}</script>'
        + (f"<script>{plotly_js()}</script>" if made else "")
        + f"<script>{_static('page.js')}</script></body></html>\n"
    )


@cache
def plotly_js() -> str:
    """The plotting library's script, put into the page once."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def _static(name: str) -> str:
    return files("mmexp.report").joinpath("static", name).read_text(encoding="utf-8")


def _script_json(value: object) -> str:
    """JSON that cannot close the script element around it."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _header(report: Report) -> str:
    kind = "lab" if report.is_lab else "paper"
    note = f'<p class="lab">{escape(words.LAB_NOTE)}</p>' if report.is_lab else ""
    source = f"<p>{escape(report.source)}</p>" if report.source else ""
    badge = f'<span class="badge {kind}">scale {escape(report.scale)}</span>'
    return f"<header><h1>{escape(report.name)} {badge}</h1>{source}{note}</header>"


def _tiles(report: Report) -> str:
    tiles = []
    best = next((line for line in report.lines if line.label == report.best), None)
    if best is not None:
        tiles.append(("best row", best.label, f"{report.metric} {words.spread(best.metrics[report.metric])}"))
    if report.best_over_blind is not None:
        value = report.best_over_blind
        tiles.append(
            ("best over blind", numbers.signed(value.value), f"95 %: {words.interval(value).split(' ', 1)[1]}")
        )
    if report.findings:
        held = sum(finding.verdict == HOLDS for finding in report.findings)
        against = sum(finding.verdict == CONTRADICTED for finding in report.findings)
        tiles.append(("findings that hold", f"{held} of {len(report.findings)}", f"{against} contradicted"))
    tiles += [
        ("rank agreement with paper", f"{tau:.2f}", f"Kendall's tau, {n}") for n, tau in report.kendall_tau.items()
    ]
    measured = max((s.n for line in report.lines for s in line.metrics.values()), default=0)
    failed = len(report.failures)
    tiles.append(("rows", str(len(report.lines)), f"up to {measured} seeds; {failed} trials without a result"))
    cells = (
        f'<div class="tile"><span>{escape(name)}</span><b>{escape(value)}</b><small>{escape(detail)}</small></div>'
        for name, value, detail in tiles
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def _search(report: Report) -> str:
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in sentences(report.search)) + "</ul>"


def _findings(findings: Sequence[Finding]) -> str:
    rows = (
        f'<tr><td><span class="verdict {VERDICT_CLASS.get(f.verdict, "open")}">{escape(f.verdict)}</span></td>'
        f'<td>{escape(f.claim)}<div class="sub"><code>{escape(f.check)}</code></div></td>'
        f"<td>{escape(f.detail)}</td><td>{escape(f.source)}</td></tr>"
        for f in findings
    )
    return _scroll(f"<table><thead>{_head(['answer', 'claim', 'measured', 'source'])}</thead><tbody>", rows)


def _table(report: Report) -> str:
    has_published = {name for line in report.lines for name in line.published}
    head = ["row", "seeds", numbers.title(report.metric), "difference [95 %]", "p (Holm)"]
    if report.metric in has_published:
        head.insert(3, "paper")
    for name in report.columns[1:]:
        head += [numbers.title(name), "paper"] if name in has_published else [numbers.title(name)]
    head += [numbers.title(name) for name in COSTS]
    rows = (_row(line, report, has_published) for line in report.lines)
    return _scroll(f'<table class="sortable"><thead>{_head(head)}</thead><tbody>', rows)


def _row(line: Line, report: Report, has_published: set[str]) -> str:
    found = line.difference
    seeds = line.metrics[report.metric].n if report.metric in line.metrics else 0
    cells = [_cell(_label(line), None, "label", raw=True), _cell(str(seeds), seeds)]
    cells += _metric_cells(line, report.metric, has_published)
    cells.append(_cell(words.difference(line), found.value if found else None, _tone(line)))
    cells.append(_cell(numbers.p_value(line.p_holm), line.p_holm))
    for name in report.columns[1:]:
        cells += _metric_cells(line, name, has_published)
    cells += [_cell(words.cost(name, line.costs.get(name)), line.costs.get(name)) for name in COSTS]
    kinds = {"best": line.label == report.best, "baseline": line.is_baseline, "blind": line.is_blind}
    return f'<tr class="{" ".join(kind for kind, is_it in kinds.items() if is_it)}">{"".join(cells)}</tr>'


def _metric_cells(line: Line, name: str, has_published: set[str]) -> list[str]:
    summary = line.metrics.get(name)
    cells = [_cell(words.spread(summary), summary.mean if summary else None)]
    if name in has_published:
        cells.append(_cell(numbers.number(line.published.get(name)), line.published.get(name), "paper"))
    return cells


def _label(line: Line) -> str:
    tags = [tag for tag, is_it in (("baseline", line.is_baseline), ("no image", line.is_blind)) if is_it]
    return escape(line.label) + "".join(f' <span class="tag">{tag}</span>' for tag in tags)


def _tone(line: Line) -> str:
    if not line.significant or line.difference is None:
        return ""
    return "up" if line.difference.value > 0 else "down"


def _cell(text: str, value: float | None, kind: str = "", raw: bool = False) -> str:
    order = "" if value is None else f' data-value="{value:.12g}"'
    return f'<td class="{kind}"{order}>{text if raw else escape(text)}</td>'


def _head(names: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<th>{escape(name)}</th>" for name in names) + "</tr>"


def _scroll(opening: str, rows: Iterable[str]) -> str:
    return f'<div class="scroll">{opening}{"".join(rows)}</tbody></table></div>'


def _failures(failures: Sequence[Failure]) -> str:
    return "".join(
        f"<details><summary><b>{escape(f.label)}</b> seed {escape(str(f.seed))}: "
        f'<span class="verdict bad">{escape(f.status)}</span> {escape(f.reason)}</summary>'
        f"<p><code>{escape(f.folder)}</code></p><pre>{escape(f.log_tail) or 'no log'}</pre></details>"
        for f in failures
    )


def _overrides(report: Report) -> str:
    texts = [(escape(line.label), escape(" ".join(line.overrides)) or numbers.NOTHING) for line in report.lines]
    rows = (f"<tr><td>{label}</td><td><code>{text}</code></td></tr>" for label, text in texts)
    return _scroll(f"<table><thead>{_head(['row', 'overrides'])}</thead><tbody>", rows)
