"""Figures as plain Plotly JSON: nothing of Plotly is imported to describe them.

Plotly reads a small HTML in its texts, so every text from outside is escaped here.
"""

from html import escape
from typing import Any

from mmexp.report import words
from mmexp.report.search import tree_figure
from mmexp.report.table import Line, Report
from mmexp.statistics import numbers

FONT = {"family": "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": "#1c2430"}
ACCENT, BEST, BASELINE, BLIND, PAPER = "#8fb2ec", "#2f6fde", "#5b6776", "#c9ced6", "#d9822b"
GRID = "#e8ebf0"
DASHES = ("solid", "dot", "dash", "dashdot")
COLORS = ("#2f6fde", "#d9822b", "#1a7f4b", "#b3261e", "#7a4fc9", "#0f8b8d", "#a0522d", "#c2417c", "#5b6776", "#8a9a0b")

Figure = dict[str, Any]


def figures(report: Report) -> dict[str, Figure]:
    """Id -> figure, those for which there is data."""
    made = {
        "search": tree_figure(report.search),
        "bars": bars(report),
        "heat": heat_map(report),
        "curves": curves(report),
    }
    return {name: figure for name, figure in made.items() if figure is not None}


def bars(report: Report) -> Figure | None:
    """Mean of the ranking metric per line; error bars are the standard deviation over seeds, dots the seeds."""
    lines = [line for line in report.lines if report.metric in line.metrics]
    if not lines:
        return None
    summaries = [line.metrics[report.metric] for line in lines]
    labels = [escape(line.label) for line in lines]
    means = {
        "type": "bar",
        "orientation": "h",
        "name": "mean over seeds",
        "y": labels,
        "x": [summary.mean for summary in summaries],
        "error_x": {"type": "data", "array": [summary.std or 0 for summary in summaries], "color": "#39424f"},
        "marker": {"color": [_bar_color(line, report) for line in lines]},
        "hovertext": [escape(words.spread(summary)) for summary in summaries],
        "hoverinfo": "text",
    }
    points = [(label, value) for label, summary in zip(labels, summaries, strict=True) for value in summary.values]
    seeds = _dots("seeds", points, {"color": "#1c2430", "size": 6, "opacity": 0.55})
    published = [
        (escape(line.label), line.published[report.metric]) for line in lines if report.metric in line.published
    ]
    data = [means, seeds] + (
        [_dots("paper", published, {"color": PAPER, "size": 10, "symbol": "diamond"})] if published else []
    )
    layout = plain_layout(90 + 34 * len(lines)) | {
        "xaxis": {"title": {"text": escape(numbers.title(report.metric))}, "gridcolor": GRID, "zeroline": False},
        "yaxis": {"autorange": "reversed", "automargin": True, "ticksuffix": "  "},
        "bargap": 0.35,
        "legend": {"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0},
    }
    return {"data": data, "layout": layout}


def heat_map(report: Report) -> Figure | None:
    """Mean per line and question family; colour is the share of 100, or of the column's best on larger scales."""
    lines = [line for line in report.lines if any(name in line.metrics for name in report.families)]
    if not lines or len(report.families) < 2:
        return None
    grid = [[line.metrics[n].mean if n in line.metrics else None for n in report.families] for line in lines]
    tops = [max([100.0, *(row[place] or 0 for row in grid)]) for place in range(len(report.families))]
    shades = [[None if v is None else 100 * v / top for v, top in zip(row, tops, strict=True)] for row in grid]
    data = {
        "type": "heatmap",
        "x": [escape(numbers.title(name)) for name in report.families],
        "y": [escape(line.label) for line in lines],
        "z": shades,
        "text": [[numbers.number(value) for value in row] for row in grid],
        "texttemplate": "%{text}",
        "hovertemplate": "%{y}<br>%{x}: %{text}<extra></extra>",
        "colorscale": [[0, "#ffffff"], [0.5, "#c3d6f6"], [1, "#2f6fde"]],
        "zmin": 0,
        "zmax": 100,
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }
    layout = plain_layout(130 + 34 * len(lines)) | {
        "margin": {"l": 10, "r": 60, "t": 120, "b": 10},
        "xaxis": {"side": "top", "showgrid": False, "tickangle": -35},
        "yaxis": {"autorange": "reversed", "automargin": True, "showgrid": False, "ticksuffix": "  "},
    }
    return {"data": [data], "layout": layout}


def curves(report: Report) -> Figure | None:
    """Training loss: one colour per line of the table, one dash per stage (the last is solid)."""
    if not report.curves:
        return None
    colors = {line.label: COLORS[place % len(COLORS)] for place, line in enumerate(report.lines)}
    stages = list(dict.fromkeys(curve.stage for curve in report.curves))
    dashes = {stage: DASHES[len(stages) - 1 - place] for place, stage in enumerate(stages[-len(DASHES) :])}
    data, named = [], set()
    for curve in report.curves:
        name = f"{curve.label} ({curve.stage})" if curve.stage else curve.label
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": escape(name),
                "legendgroup": escape(name),
                "showlegend": name not in named,
                "x": list(curve.steps),
                "y": list(curve.losses),
                "line": {"color": colors[curve.label], "width": 1.5, "dash": dashes[curve.stage]},
                "hovertemplate": f"seed {escape(str(curve.seed))}, step %{{x}}: %{{y:.3f}}",
            }
        )
        named.add(name)
    layout = plain_layout(380) | {
        "xaxis": {"title": {"text": "step"}, "gridcolor": GRID, "zeroline": False},
        "yaxis": {
            "title": {"text": "loss"},
            "gridcolor": GRID,
            "zeroline": False,
            "rangemode": "tozero",
            "automargin": True,
        },
        "legend": {"orientation": "v"},
    }
    return {"data": data, "layout": layout}


def _bar_color(line: Line, report: Report) -> str:
    if line.label == report.best:
        return BEST
    if line.is_blind:
        return BLIND
    return BASELINE if line.is_baseline else ACCENT


def _dots(name: str, points: list[tuple[str, float]], marker: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "y": [label for label, _ in points],
        "x": [value for _, value in points],
        "marker": marker,
        "hovertemplate": "%{x:.1f}<extra>" + name + "</extra>",
    }


def plain_layout(height: int) -> dict[str, Any]:
    return {
        "height": height,
        "font": FONT,
        "margin": {"l": 10, "r": 20, "t": 30, "b": 45},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
    }
