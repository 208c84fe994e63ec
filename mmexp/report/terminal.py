"""The table in a terminal, within 100 columns."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmexp.report import words
from mmexp.report.findings import CONTRADICTED, HOLDS
from mmexp.report.search import is_tree, rich_tree, sentences
from mmexp.report.table import Line, Report
from mmexp.statistics import numbers

WIDTH = 100
LABEL_WIDTH = 26
SHOWN_COSTS = {
    "visual_tokens": "visual tokens",
    "projector_parameters": "projector params",
    "step_ms": "step ms",
    "seconds": "seconds",
}
VERDICT_STYLE = {HOLDS: "green", CONTRADICTED: "red"}


def print_report(report: Report, console: Console | None = None) -> None:
    """Table, findings and failures; further metrics and costs are left out where they do not fit."""
    console = console or Console()
    width = min(console.width, WIDTH)
    console.print(_table(report, width), width=width)
    if is_tree(report.search):
        console.print(rich_tree(report.search))
        for text in sentences(report.search):
            console.print(Text(text), width=width)
    if report.is_lab:
        console.print(Text(words.LAB_NOTE, style="dim"), width=width)
    for note in report.notes:
        console.print(Text(note, style="yellow"), width=width)
    if report.best_over_blind is not None:
        text = f"best row {report.best} over blind: {words.interval(report.best_over_blind)} {report.metric}"
        console.print(Text(text), width=width)
    for finding in report.findings:
        verdict = Text(finding.verdict, style=VERDICT_STYLE.get(finding.verdict, "yellow"))
        console.print(Text.assemble(verdict, f"  {finding.claim} ({finding.detail})"), width=width)
    for failure in report.failures:
        text = f"{failure.status}  {failure.label} seed {failure.seed}: {failure.reason}"
        console.print(Text(text, style="red"), width=width)


def _table(report: Report, width: int) -> Table:
    table = Table(title=Text(report.name, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    labels = _label_width(report)
    table.add_column("row", width=labels, overflow="fold")
    table.add_column(Text(numbers.title(report.metric)), justify="right", no_wrap=True)
    table.add_column("difference [95 %]", justify="right", no_wrap=True)
    metrics, costs = _fitting(report, width)
    for name in metrics:
        table.add_column(Text(numbers.title(name)), justify="right", min_width=5)
    for name in costs:
        table.add_column(SHOWN_COSTS[name], justify="right", min_width=6)
    for line in report.lines:
        table.add_row(*_cells(line, report.metric, metrics, costs), style=_style(line, report))
    return table


def _fitting(report: Report, width: int) -> tuple[list[str], list[str]]:
    """Further columns that have room: metrics first, in their order, then costs."""
    main = max((len(words.spread(line.metrics.get(report.metric))) for line in report.lines), default=8)
    differences = max(17, *(len(words.difference(line)) for line in report.lines), 0)
    left = width - _label_width(report) - max(main, len(report.metric)) - differences - 8
    metrics: list[str] = []
    for name in report.columns[1:]:
        left -= max(5, *(len(word) for word in numbers.title(name).split())) + 2
        if left >= 0:
            metrics.append(name)
    costs = []
    for name in SHOWN_COSTS:
        left -= max(6, *(len(word) for word in SHOWN_COSTS[name].split())) + 2
        if left >= 0:
            costs.append(name)
    return metrics, costs


def _label_width(report: Report) -> int:
    return min(LABEL_WIDTH, max((len(line.label) for line in report.lines), default=3))


def _cells(line: Line, metric: str, metrics: list[str], costs: list[str]) -> list[Text]:
    cells = [line.label, words.spread(line.metrics.get(metric)), words.difference(line)]
    cells += [numbers.number(line.metrics[name].mean if name in line.metrics else None) for name in metrics]
    cells += [words.cost(name, line.costs.get(name)) for name in costs]
    return [Text(cell) for cell in cells]


def _style(line: Line, report: Report) -> str:
    if line.label == report.best:
        return "bold"
    return "dim" if line.is_blind else ""
