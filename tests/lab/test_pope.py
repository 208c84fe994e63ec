"""POPE's three samplings: what is not there, and why it is asked about."""

import json
from collections import Counter
from pathlib import Path

from mmexp.evaluation.benchmark import Benchmark
from mmexp.lab.pope import SAMPLINGS, Statistics, pope_turns
from mmexp.lab.rng import Rng
from mmexp.lab.world import Object, Scene, scenes
from mmexp.lab.world_stage import WorldStage
from tests.lab.making import spec, world_node
from tests.rules import metric_node


def scene(*named: str) -> Scene:
    return Scene(tuple(Object(*name.split(), "small", 0, place) for place, name in enumerate(named)))  # type: ignore[arg-type]


SEEN = [scene("red circle", "blue cross"), scene("red circle", "green square"), scene("red circle", "green square")]
SEEN += [scene("cyan circle")] * 4


def negatives(shown: Scene, sampling: str, each: int) -> list[str]:
    turns = pope_turns(shown, Statistics(SEEN), each, Rng(0))
    return [turn.question for turn in turns if turn.family == sampling and turn.answer == "no"]


def test_popular_negatives_are_the_most_frequent_that_are_absent() -> None:
    assert negatives(scene("yellow cross", "green square"), "popular", 2) == [
        "is there a cyan circle?",
        "is there a red circle?",
    ]


def test_adversarial_negatives_stand_beside_what_is_there() -> None:
    assert negatives(scene("red circle", "yellow cross"), "adversarial", 2) == [
        "is there a green square?",
        "is there a blue cross?",
    ]


def test_answers_are_right_and_balanced_in_each_sampling() -> None:
    source = scenes(spec(), Rng(1), held_out=False)
    drawn = [next(source) for _ in range(60)]
    statistics, rng, count = Statistics(drawn), Rng(2), Counter[tuple[str, str]]()
    for shown in drawn:
        present = {f"is there a {item.color} {item.shape}?" for item in shown.objects}
        turns = pope_turns(shown, statistics, 2, rng)
        for turn in turns:
            assert (turn.question in present) == (turn.answer == "yes")
            count[turn.family, turn.answer] += 1
        yes = {part: {t.question for t in turns if t.family == part and t.answer == "yes"} for part in SAMPLINGS}
        assert yes["random"] == yes["popular"] == yes["adversarial"]
    assert len(count) == 6 and set(count.values()) == {120}


def test_the_benchmark_reads_and_scores_the_file(tmp_path: Path) -> None:
    WorldStage(**world_node()).run(tmp_path, {})
    benchmark = Benchmark(
        annotations=str(tmp_path / "pope.jsonl"),
        image_folder=str(tmp_path / "images"),
        metric=metric_node("pope", "lmms_eval"),
        response_format="word",
        max_new_tokens=2,
        limit=None,
    )
    questions = benchmark.questions()
    assert len(questions) == len((tmp_path / "pope.jsonl").read_text().splitlines()) == 5 * 3 * 4
    assert json.loads((tmp_path / "pope.jsonl").read_text().splitlines()[0])["family"] == "random"
    answers = benchmark.answers(questions, [question.turn.answer for question in questions])
    metrics = benchmark.metrics("pope", answers)
    assert metrics["pope_adversarial"] == metrics["pope_random"] == metrics["pope_popular_f1"] == 100
