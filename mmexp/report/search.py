"""A greedy search as a tree: rounds, what each tried, what it kept and why it ended; other kinds have none."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from rich.text import Text
from rich.tree import Tree

KIND = "round_robin"
KEPT, TRIED, MISSING, SELECTED = "#2f6fde", "#8fb2ec", "#c9ced6", "#1a7f4b"
Trace = Mapping[str, Any]


def is_tree(search: Trace) -> bool:
    return search.get("kind") == KIND and bool(search.get("rounds"))


def tree_figure(search: Trace) -> dict[str, Any] | None:
    """Rounds from left to right, best first from top; the path that was kept is the top line. Plain Plotly JSON."""
    if not is_tree(search):
        return None
    nodes, edges = list(_nodes(search)), []
    kept = {"mode": "lines", "type": "scatter", "hoverinfo": "skip", "line": {"color": KEPT, "width": 3}}
    tried = {**kept, "line": {"color": "#d5dae2", "width": 1.5}}
    for line, wanted in ((tried, False), (kept, True)):
        xs: list[float | None] = []
        ys: list[float | None] = []
        for node in nodes:
            if node["x"] and node["kept"] is wanted:
                xs += [node["x"] - 1, node["x"], None]
                ys += [0, node["y"], None]
        edges.append({**line, "x": xs, "y": ys})
    points = {
        "type": "scatter",
        "mode": "markers+text",
        "x": [node["x"] for node in nodes],
        "y": [node["y"] for node in nodes],
        "text": [f"{escape(node['short'])}<br><b>{escape(node['score'])}</b>" for node in nodes],
        "textposition": "bottom center",
        "hovertext": [escape(node["detail"]) for node in nodes],
        "hoverinfo": "text",
        "marker": {"size": 15, "color": [node["color"] for node in nodes], "line": {"color": "#ffffff", "width": 2}},
    }
    depth, width = max(node["x"] for node in nodes), -min(node["y"] for node in nodes)
    layout = {
        "height": 130 + 74 * (width + 1),
        "font": {"family": "Inter, system-ui, sans-serif", "size": 13, "color": "#1c2430"},
        "margin": {"l": 10, "r": 20, "t": 30, "b": 10},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "xaxis": {
            "range": [-0.6, depth + 0.6],
            "side": "top",
            "tickvals": list(range(depth + 1)),
            "ticktext": ["start", *(f"round {number}" for number in range(1, depth + 1))],
            "showgrid": False,
            "zeroline": False,
        },
        "yaxis": {"visible": False, "range": [-width - 0.8, 0.5]},
    }
    return {"data": [*edges, points], "layout": layout}


def rich_tree(search: Trace) -> Tree:
    """The same for a terminal."""
    start = search["rounds"][0]["start"]
    root = Tree(_line(search, start, _short(search, start)) if start else Text("(nothing)"))
    branch = root
    for step in search["rounds"]:
        following = branch
        for name in _ranked(step):
            kept = bool(step.get("kept")) and name == step.get("best")
            added = branch.add(_line(search, name, _short(search, name, step["start"]), kept))
            following = added if kept else following
        branch = following
    return root


def tree_markdown(search: Trace) -> str:
    """The same as nested lists."""
    start = search["rounds"][0]["start"]
    lines = [f"- {_line(search, start, _short(search, start)).plain if start else '(nothing)'}"]
    for depth, step in enumerate(search["rounds"], start=1):
        ranked = _ranked(step)
        kept = step.get("best") if step.get("kept") else None
        for name in [name for name in ranked if name != kept] + [name for name in ranked if name == kept]:
            text = _line(search, name, _short(search, name, step["start"]), name == kept).plain
            lines.append(f"{'  ' * depth}- {'**' + text + '**' if name == kept else text}")
    return "\n".join([*lines, "", *(f"- {text}" for text in sentences(search))])


def sentences(search: Trace) -> list[str]:
    """What came out, why it ended, what the greedy path lost."""
    said = [f"searched over {search['key']} for {search['metric']}; stop rule: {search['stop']}"]
    selected = search.get("selected")
    if selected:
        said.append(f"result: {selected} ({_score(search, selected)}); {search['why']}")
    elif search.get("why"):
        said.append(f"no result: {search['why']}")
    for number, step in enumerate(search["rounds"], start=1):
        if step.get("improvement") is not None and step.get("needed") is not None:
            said.append(f"round {number}: {step['improvement']:+.2f}, needed {step['needed']:.2f}")
        if step.get("tied"):
            said.append(f"round {number}: equal means, decided by cost: {', '.join(step['tied'])}")
    found = search.get("exhaustive")
    for size in found["sizes"] if found else ():
        if size["greedy"]:
            said.append(f"size {size['size']}: best {size['best']}, greedy {size['greedy']}, {_regret(size['regret'])}")
    if found:
        said.append(f"best of all subsets: {found['best']}; {_regret(found['regret'])} of the result")
    return said


def _regret(value: float | None) -> str:
    return "regret unknown" if value is None else f"regret {value:.2f}"


def _nodes(search: Trace) -> Iterator[dict[str, Any]]:
    start = search["rounds"][0]["start"]
    if start:
        yield _node(search, start, 0, 0, None, True)
    else:
        yield {"x": 0, "y": 0, "short": "nothing", "score": "", "detail": "", "color": MISSING, "kept": True}
    for depth, step in enumerate(search["rounds"], start=1):
        for rank, name in enumerate(_ranked(step)):
            kept = bool(step.get("kept")) and name == step.get("best")
            yield _node(search, name, depth, -rank, step["start"], kept)


def _node(search: Trace, name: str, x: int, y: int, parent: str | None, kept: bool) -> dict[str, Any]:
    found = search["sets"].get(name, {})
    color = KEPT if kept else TRIED
    color = SELECTED if name == search.get("selected") else color
    detail = [name, _score(search, name), *(f"{cost}: {value:g}" for cost, value in found.get("costs", {}).items())]
    return {
        "x": x,
        "y": y,
        "short": _short(search, name, parent),
        "score": _score(search, name),
        "detail": "; ".join(text for text in [*detail, found.get("problem", "")] if text),
        "color": MISSING if found.get("mean") is None else color,
        "kept": kept,
    }


def _ranked(step: Mapping[str, Any]) -> list[str]:
    return list(step.get("ranked") or step["tried"])


def _short(search: Trace, name: str, parent: str | None = None) -> str:
    """What a set adds to its parent."""
    members = search["sets"].get(name, {}).get("members", [name])
    before = search["sets"].get(parent, {}).get("members", []) if parent else []
    return ("+ " if parent else "") + ", ".join(member for member in members if member not in before)


def _score(search: Trace, name: str) -> str:
    found = search["sets"].get(name, {})
    if found.get("mean") is None:
        return "no result" if found.get("problem") else "-"
    return f"{found['mean']:.2f}" + (f" \u00b1 {found['std']:.2f}" if found.get("std") is not None else "")


def _line(search: Trace, name: str, short: str, kept: bool = False) -> Text:
    mark = "  <- result" if name == search.get("selected") else ""
    style = "bold green" if mark else ("bold" if kept else "")
    return Text(f"{short}  {_score(search, name)}{mark}", style=style)
