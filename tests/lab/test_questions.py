"""Every answer is right, re-derived from the text by rules of its own, and none can be guessed from the text."""

import re
from collections import Counter, defaultdict

import pytest

from mmexp.errors import UserError
from mmexp.lab.dice import Dice
from mmexp.lab.questions import FAMILIES, PRACTICE, Questioner, caption, question_only_accuracy
from mmexp.lab.world import Object, Scene, scenes
from tests.lab.making import spec

CHANCE = {"existence": 0.5, "count": 0.25, "attribute": 1 / 3, "absolute_position": 1 / 16, "relative_position": 0.5}
Asked = list[tuple[Scene, list[tuple[str, str, str]]]]


def asked(number: int, per_family: int, seed: int, *, held_out: bool, families: object = FAMILIES) -> Asked:
    source = scenes(spec(), Dice(seed), held_out=held_out)
    questioner = Questioner(spec(), {family: per_family for family in families}, Dice(seed, 1))  # type: ignore[attr-defined]
    return [(scene, questioner.ask(scene)) for scene, _ in zip(source, range(number), strict=False)]


def answer(scene: Scene, question: str) -> str:
    """The answer from the words alone, by set arithmetic on the scene: nothing of mmexp.lab.questions is used."""
    things = [vars_of(item) for item in scene.objects]
    by_color = {thing["color"]: thing for thing in things}
    if found := re.fullmatch(r"is there a (\w+) (\w+)\?", question):
        wanted = {"color": found[1], "shape": found[2]}
        return "yes" if any(wanted.items() <= thing.items() for thing in things) else "no"
    if found := re.fullmatch(r"how many objects are (\w+)\?", question):
        singular = {"circles": "circle", "squares": "square", "triangles": "triangle", "crosses": "cross"}[found[1]]
        return str(Counter(thing["shape"] for thing in things)[singular])
    if found := re.fullmatch(r"which (shape|size) is (\w+)\?", question):
        return str(by_color[found[2]][found[1]])
    if found := re.fullmatch(r"which cell is (\w+)\?", question):
        return cell(by_color[found[1]])
    if found := re.fullmatch(r"which cells are (\w+) and (\w+)\?", question):
        return f"{cell(by_color[found[1]])} and {cell(by_color[found[2]])}"
    found = re.fullmatch(r"is (\w+) (left of|right of|above|below) (\w+)\?", question)
    assert found, question
    one, other = by_color[found[1]], by_color[found[3]]
    key, sign = {"left of": ("x", 1), "right of": ("x", -1), "above": ("y", 1), "below": ("y", -1)}[found[2]]
    assert one[key] != other[key], question
    return "yes" if sign * (int(other[key]) - int(one[key])) > 0 else "no"


def vars_of(item: Object) -> dict[str, object]:
    return {"color": item.color, "shape": item.shape, "size": item.size, "x": item.column, "y": item.row}


def cell(thing: dict[str, object]) -> str:
    return "abcd"[int(str(thing["y"]))] + "1234"[int(str(thing["x"]))]


def test_every_answer_is_right() -> None:
    checked: Counter[str] = Counter()
    for scene, questions in asked(400, 4, 0, held_out=False, families={**FAMILIES, **PRACTICE}):
        for family, question, said in questions:
            assert said == answer(scene, question), (scene.content(), question)
            checked[family] += 1
    assert set(checked) == {*FAMILIES, *PRACTICE} and min(checked.values()) > 500


def test_the_key_word_comes_last() -> None:
    for _, questions in asked(50, 4, 1, held_out=False):
        for _, question, _ in questions:
            assert re.search(r"(\w+)\?$", question), question


def test_no_question_is_asked_twice_of_a_scene() -> None:
    for _, questions in asked(200, 4, 2, held_out=False):
        assert len({question for _, question, _ in questions}) == len(questions)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_answers_cannot_be_guessed_from_the_question(family: str) -> None:
    """A table of the commonest answer of each training question, and one fitted to the test itself."""
    train, test = (
        [
            (question, said)
            for _, part in asked(number, per_scene, seed, held_out=held)
            for f, question, said in part
            if f == family
        ]
        for number, per_scene, seed, held in ((2000, 2, 3, False), (500, 1, 4, True))
    )
    assert len(test) == 500
    assert question_only_accuracy(train, test) < CHANCE[family] + 0.05
    assert question_only_accuracy(test, test) < CHANCE[family] + 0.08


def test_answers_of_a_family_are_even() -> None:
    said = defaultdict(Counter)
    for _, questions in asked(500, 1, 5, held_out=True):
        for family, _, text in questions:
            said[family][text] += 1
    assert max(said["existence"].values()) < 275 and max(said["relative_position"].values()) < 275
    assert max(said["count"].values()) < 150 and max(said["absolute_position"].values()) < 45


def test_captions_name_every_object_once() -> None:
    for number, (scene, _) in enumerate(asked(50, 1, 6, held_out=False)):
        parts = caption(spec(), scene, Dice(7, number)).split(", ")
        expected = {f"a {t['size']} {t['color']} {t['shape']} at {cell(t)}" for t in map(vars_of, scene.objects)}
        assert len(parts) == len(expected) and set(parts) == expected


def test_wrong_families_are_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'existence'"):
        Questioner(spec(), {"existance": 1}, Dice(0))
    with pytest.raises(UserError, match="at least 0"):
        Questioner(spec(), {"existence": -1}, Dice(0))


def test_a_family_without_questions_is_refused() -> None:
    lonely = spec(min_objects=1, max_objects=1)
    questioner = Questioner(lonely, {"relative_position": 1}, Dice(0))
    source = scenes(lonely, Dice(1), held_out=False)
    for _ in range(20):
        questioner.ask(next(source))
    with pytest.raises(UserError, match="no scene of this world has a question of family 'relative_position'"):
        questioner.check("lab world: split 'test'")
