"""The report as files for other programs: CSV, JSON, Markdown."""

import csv
import dataclasses
import io
import json
from typing import Any

from mmexp.files import finite
from mmexp.report import words
from mmexp.report.search import is_tree, tree_markdown
from mmexp.report.table import COSTS, Line, Report
from mmexp.statistics import numbers


def to_csv(report: Report) -> str:
    """One line per row of the table; mean, std and n of every metric."""
    names = list(dict.fromkeys([*report.columns, *(name for line in report.lines for name in line.metrics)]))
    head = ["row", "label", "baseline", "blind", "difference", "low", "high", "p", "p_holm", *COSTS]
    head += [f"{name}_{part}" for name in names for part in ("mean", "std", "n", "published")]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    for line in report.lines:
        writer.writerow(["" if value is None else value for value in _csv_row(line, names)])
    return buffer.getvalue()


def _csv_row(line: Line, names: list[str]) -> list[Any]:
    found = line.difference
    cells: list[Any] = [line.row, line.label, line.is_baseline, line.is_blind]
    cells += [found.value, found.low, found.high, found.p] if found else [None] * 4
    cells += [line.p_holm, *(line.costs.get(name) for name in COSTS)]
    for name in names:
        summary = line.metrics.get(name)
        cells += [summary.mean, summary.std, summary.n] if summary else [None] * 3
        cells.append(line.published.get(name))
    return cells


def to_json(report: Report) -> str:
    """Everything; training curves apart."""
    plain = dataclasses.asdict(report)
    plain.pop("curves")
    return json.dumps(finite(plain), indent=2, allow_nan=False) + "\n"


def to_markdown(report: Report) -> str:
    """Table, findings, failures."""
    parts = [f"# {_cell(report.name)}", f"Scale {report.scale}. {_cell(report.source)}".strip()]
    if report.is_lab:
        parts.append(f"*{words.LAB_NOTE}*")
    for name, tau in report.kendall_tau.items():
        parts.append(f"Rank agreement with the paper (Kendall's tau) in {_cell(name)}: {tau:.2f}")
    parts += [f"- {_cell(note)}" for note in report.notes]
    parts.append(_table(report))
    if is_tree(report.search):
        parts += ["## Search", tree_markdown(report.search)]
    if report.findings:
        rows = [[f.id, f.claim, f"`{f.check}`", f"**{f.verdict}**", f.detail, f.source] for f in report.findings]
        parts += ["## Findings", markdown_table(["id", "claim", "check", "answer", "detail", "source"], rows)]
    if report.failures:
        rows = [[f.label, str(f.seed), f.status, f.reason] for f in report.failures]
        parts += ["## Trials without a result", markdown_table(["row", "seed", "status", "reason"], rows)]
    return "\n\n".join(parts) + "\n"


def _table(report: Report) -> str:
    has_published = {name for line in report.lines for name in line.published}
    head = ["row", "seeds", f"difference in {report.metric} [95 %]", "p (Holm)"]
    for name in report.columns:
        head += [name, f"{name} (paper)"] if name in has_published else [name]
    rows = []
    for line in report.lines:
        cells = [line.label, str(_seeds(line, report)), words.difference(line), numbers.p_value(line.p_holm)]
        for name in report.columns:
            cells.append(words.spread(line.metrics.get(name)))
            cells += [numbers.number(line.published.get(name))] if name in has_published else []
        rows.append(cells + [words.cost(name, line.costs.get(name)) for name in COSTS])
    return markdown_table(head + list(COSTS), rows)


def _seeds(line: Line, report: Report) -> int:
    summary = line.metrics.get(report.metric)
    return summary.n if summary else 0


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Text that cannot break out of its cell or become HTML."""
    clean = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return clean.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
