"""An Optuna search's own page beside the sweep's report: how it went, its best points or Pareto set, every trial.

Made from what the ledger has of the search: ``study.html`` (self-contained) and ``study.md``.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from mmexp.files import LEDGER_FILE, read_json, replacing
from mmexp.report.files import markdown_table
from mmexp.report.html import page
from mmexp.report.plots import ACCENT, BASELINE, BEST, GRID, plain_layout
from mmexp.statistics import numbers

KIND = "optuna"
SHOWN_BEST = 10
Record = Mapping[str, Any]
Figure = dict[str, Any]


def show_study(folder: Path, console: Console) -> None:
    """Write the page of an Optuna search and print its best points; nothing where the sweep was another kind."""
    ledger = read_json(folder / LEDGER_FILE) or {}
    search = ledger.get("search") or {}
    if search.get("kind") != KIND or "trials" not in search:
        return
    record = {"name": ledger["name"], "scale": ledger["scale"], **search}
    for name, text in (("study.html", to_html(record)), ("study.md", to_markdown(record))):
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    for line in summary(record):
        console.print(Text(line), soft_wrap=True)
    console.print(f"study: {folder / 'study.html'}; optuna-dashboard {record['storage']}", soft_wrap=True, markup=False)


def summary(record: Record) -> list[str]:
    """The best points, or the Pareto set, a line each, by the first objective."""
    title = "Pareto set" if len(record["objectives"]) > 1 else "best"
    lines = [f"{title} of {counts(record)}:"]
    for trial in best(record)[:SHOWN_BEST]:
        values = ", ".join(
            f"{objective['metric']} {numbers.number(value)}"
            for objective, value in zip(record["objectives"], trial["values"], strict=True)
        )
        lines.append(f"  {trial['row']}  {values}  {overrides(trial)}")
    return lines


def best(record: Record) -> list[Mapping[str, Any]]:
    """Trials that no other trial dominates, best in the first objective first."""
    found = [trial for trial in record["trials"] if trial["number"] in record["best"]]
    return sorted(found, key=lambda trial: trial["values"][0], reverse=_grows(record, 0))


def counts(record: Record) -> str:
    """How many trials there are of each state."""
    states = [trial["state"] for trial in record["trials"] if trial["same_as"] is None]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "no trials"


def overrides(trial: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in trial["params"].items())


def to_markdown(record: Record) -> str:
    """Head, best points, all trials."""
    parts = [f"# Search {record['name']}", "\n".join(f"- {line}" for line in _facts(record))]
    for title, trials in (
        ("Best" if len(record["objectives"]) == 1 else "Pareto set", best(record)),
        ("Trials", record["trials"]),
    ):
        parts += [f"## {title}", markdown_table(_head(record), [_row(record, trial) for trial in trials])]
    return "\n\n".join(parts) + "\n"


def to_html(record: Record) -> str:
    """The page."""
    made = {"history": history(record)}
    if len(record["objectives"]) > 1:
        made["pareto"] = pareto(record)
    facts = "".join(f"<li>{escape(line)}</li>" for line in _facts(record))
    titles = {"history": "History", "pareto": "Pareto set"}
    sections = [f"<header><h1>Search {escape(record['name'])}</h1><ul>{facts}</ul></header>"]
    sections += [
        f'<section><h2>{titles[name]}</h2><div class="plot" id="plot-{name}"></div></section>' for name in made
    ]
    sections.append(f"<section><h2>Trials</h2>{_table(record)}</section>")
    return page(f"Search {record['name']}", sections, made)


def history(record: Record) -> Figure:
    """The first objective of each trial, and the best so far; what has no value is at the bottom."""
    done = [trial for trial in record["trials"] if trial["values"]]
    pick = max if _grows(record, 0) else min
    values = [trial["values"][0] for trial in done]
    so_far = [pick(values[: place + 1]) for place in range(len(values))]
    places = [trial["number"] for trial in done]
    data = [
        _points("trials", places, values, [_label(trial) for trial in done], ACCENT),
        {"type": "scatter", "mode": "lines", "name": "best so far", "x": places, "y": so_far,
         "line": {"color": BEST, "shape": "hv"}, "hoverinfo": "skip"},
    ]  # fmt: skip
    cut = [trial for trial in record["trials"] if trial["state"] == "pruned" and trial["intermediate"]]
    last = [list(trial["intermediate"].values())[-1] for trial in cut]
    if cut:
        data.append(_points("pruned at", [t["number"] for t in cut], last, [_label(t) for t in cut], BASELINE, "x"))
    axes = {"xaxis": _axis("trial"), "yaxis": _axis(record["objectives"][0]["metric"])}
    return {"data": data, "layout": plain_layout(380) | axes}


def pareto(record: Record) -> Figure:
    """The first two objectives against each other; the points that no other point dominates are joined."""
    done = [trial for trial in record["trials"] if trial["values"] and trial["same_as"] is None]
    front = sorted(best(record), key=lambda trial: trial["values"][1])

    def part(name: str, trials: Sequence[Mapping[str, Any]], color: str) -> dict[str, Any]:
        x, y = ([trial["values"][place] for trial in trials] for place in (1, 0))
        return _points(name, x, y, [_label(trial) for trial in trials], color)

    others = [trial for trial in done if trial["number"] not in record["best"]]
    data = [part("beaten", others, ACCENT), part("Pareto set", front, BEST) | {"mode": "lines+markers"}]
    names = [objective["metric"] for objective in record["objectives"]]
    return {"data": data, "layout": plain_layout(420) | {"xaxis": _axis(names[1]), "yaxis": _axis(names[0])}}


def _facts(record: Record) -> list[str]:
    space = "; ".join(f"{name}: {values}" for name, values in record["space"].items())
    size = "infinitely many" if record["size"] is None else str(record["size"])
    objectives = ", ".join(f"{objective['direction']} {objective['metric']}" for objective in record["objectives"])
    pruner = f", pruner {record['pruner']}" if record["pruner"] else ""
    facts = [
        f"{objectives}; sampler {record['sampler']}{pruner}; {counts(record)} of {size} points",
        f"space: {space}",
        f"study {record['study']} in {record['storage']}",
    ]
    return facts + ([f"subject to {', '.join(record['constraints'])}"] if record["constraints"] else [])


def _head(record: Record) -> list[str]:
    return ["trial", "state", *(objective["metric"] for objective in record["objectives"]), *record["space"], "note"]


def _row(record: Record, trial: Mapping[str, Any]) -> list[str]:
    values = trial["values"] or [None] * len(record["objectives"])
    note = f"as {trial['same_as']}" if trial["same_as"] else trial["reason"]
    params = [str(trial["params"].get(name, "")) for name in record["space"]]
    return [trial["row"], trial["state"], *(numbers.number(value) for value in values), *params, note]


def _table(record: Record) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in _head(record))
    rows = []
    for trial in record["trials"]:
        kind = ' class="best"' if trial["number"] in record["best"] else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in _row(record, trial))
        rows.append(f"<tr{kind}>{cells}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _label(trial: Mapping[str, Any]) -> str:
    return escape(f"{trial['row']}: {overrides(trial)}")


def _points(
    name: str, x: Sequence[float], y: Sequence[float], texts: Sequence[str], color: str, symbol: str = "circle"
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": list(x),
        "y": list(y),
        "hovertext": list(texts),
        "hovertemplate": "%{hovertext}<br>%{y:.2f}<extra></extra>",
        "marker": {"color": color, "size": 9, "symbol": symbol},
    }


def _axis(title: str) -> dict[str, Any]:
    return {"title": {"text": escape(title)}, "gridcolor": GRID, "zeroline": False, "automargin": True}


def _grows(record: Record, place: int) -> bool:
    return bool(record["objectives"][place]["direction"] == "maximize")
