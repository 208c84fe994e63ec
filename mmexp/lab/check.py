"""``mmexp lab check``: what each expert can and cannot see, what language models know, what can be guessed blind."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mmexp.files import MODEL_FILE
from mmexp.instantiate import instantiate
from mmexp.interfaces import Encoder
from mmexp.lab.build import WORLD, lab_specs
from mmexp.lab.probes import Accuracies, ProbeBudget, chance, examine
from mmexp.lab.world import WorldSpec
from mmexp.stages.graph import StageSpec
from mmexp.stages.run import run_stage
from mmexp.stages.store import Store

EXPERTS = "mmexp.lab.expert_stage."
Findings = dict[str, dict[str, Accuracies]]
"""Expert -> depth -> target -> accuracies."""


def check(config: Mapping[str, Any], store: Store) -> None:
    """Probe the frozen experts, and print the tables."""
    specs = lab_specs(config)
    console = Console()
    found: Findings = {}
    for name, spec in specs.items():
        if str(spec.node["_target_"]).startswith(EXPERTS):
            with console.status(f"{name}: training probes"):
                found[name] = probe_expert(spec, run_stage(spec, store, None))
    node = specs[next(iter(found))].node
    levels = chance(WorldSpec.from_config(node["world"]), ProbeBudget(**node["probes"]), node["seed"])
    console.print(table_of(found, levels))
    for line in lines_of(found, levels):
        console.print(line)
    for name, spec in specs.items():
        path = run_stage(spec, store, None) / "lookup.json"
        if path.is_file():
            console.print(f"{name}: {path.read_text()}", highlight=False)
    for line in blind_lines(run_stage(specs[WORLD], store, None)):
        console.print(line)


def probe_expert(spec: StageSpec, folder: Path) -> dict[str, Accuracies]:
    """Depth -> target -> accuracies of the weights in a finished stage."""
    encoder = instantiate(
        {**spec.node["encoder"], "weights": str(folder / MODEL_FILE)}, f"{spec.where}.encoder", expect=Encoder
    ).eval()
    world = WorldSpec.from_config(spec.node["world"])
    return examine(encoder, world, ProbeBudget(**spec.node["probes"]), spec.node["seed"])


def best(depths: Mapping[str, Accuracies]) -> dict[str, tuple[float, str]]:
    """Target -> the highest accuracy over depths and probes, and its depth."""
    targets = next(iter(depths.values()))
    return {target: max((max(found[target].values()), depth) for depth, found in depths.items()) for target in targets}


def strengths(found: Findings) -> dict[str, list[str]]:
    """Expert -> targets on which no more than one other expert is better."""
    tops = {name: best(depths) for name, depths in found.items()}
    return {
        name: [target for target in top if sum(other[target][0] > top[target][0] for other in tops.values()) <= 1]
        for name, top in tops.items()
    }


def shallower_is_better(depths: Mapping[str, Accuracies], margin: float) -> list[str]:
    """Targets that some probe reads better, by more than ``margin`` points, at a depth before the last."""
    *before, last = depths.values()
    return [
        target
        for target in last
        if any(found[target][kind] > last[target][kind] + margin for found in before for kind in last[target])
    ]


def table_of(found: Findings, levels: Mapping[str, float]) -> Table:
    """A row per expert and depth, ``linear/mlp`` per target; the best two experts of a target are marked."""
    table = Table(title="accuracy of linear / MLP probes on frozen features, percent", caption="* best or second best")
    table.add_column("expert")
    table.add_column("depth", justify="right")
    for target in levels:
        table.add_column(target, justify="right")
    table.add_row("chance", "", *(f"{level:.0f}" for level in levels.values()), end_section=True)
    strong = strengths(found)
    for name, depths in found.items():
        tops = best(depths)
        for number, (depth, accuracies) in enumerate(depths.items()):
            cells = []
            for target in levels:
                mark = "*" if target in strong[name] and tops[target][1] == depth else ""
                text = f"{accuracies[target]['linear']:.0f}/{accuracies[target]['mlp']:.0f}{mark}"
                cells.append(f"[bold]{text}[/bold]" if mark else text)
            table.add_row("" if number else name, depth, *cells, end_section=number == len(depths) - 1)
    return table


def lines_of(found: Findings, levels: Mapping[str, float]) -> list[str]:
    """What the table says of each expert."""
    lines = []
    for name, targets in strengths(found).items():
        tops = best(found[name])
        blind = [target for target in tops if tops[target][0] < levels[target] + 5]
        earlier = shallower_is_better(found[name], margin=3.0)
        lines.append(
            f"{name}: best or second best: {', '.join(targets) or 'nothing'}; "
            f"not above chance: {', '.join(blind) or 'nothing'}; "
            f"better before the last depth: {', '.join(earlier) or 'nothing'}"
        )
    return lines


def blind_lines(world: Path) -> list[str]:
    """How well each family's questions are answered without their image."""
    from mmexp.lab.questions import question_only_accuracy

    train, test = (read_questions(world, split) for split in ("finetune", "test"))
    return [
        f"{family}: answered from the question alone: {100 * question_only_accuracy(train[family], test[family]):.1f} %"
        for family in sorted(test)
        if family in train
    ]


def read_questions(world: Path, split: str) -> dict[str, list[tuple[str, str]]]:
    """Family -> (question, answer) of a split."""
    found: dict[str, list[tuple[str, str]]] = {}
    held_out = world / f"{split}.jsonl"
    if held_out.is_file():
        for line in held_out.read_text().splitlines():
            record = json.loads(line)
            found.setdefault(record["family"], []).append((record["question"], record["answer"]))
        return found
    for record in json.loads((world / f"{split}.json").read_text()):
        entries = record["conversations"]
        for human, gpt in zip(entries[::2], entries[1::2], strict=True):
            question = human["value"].removeprefix("<image>\n")
            found.setdefault(human["family"], []).append((question, gpt["value"]))
    return found
