"""Every answer is right, re-derived from the text by rules of its own, and none can be guessed from the text."""

import re
from collections import Counter, defaultdict

import pytest

from mmexp.errors import UserError
from mmexp.interfaces import Turn
from mmexp.lab.questions import FAMILIES, Questioner, box_of, caption, question_only_accuracy
from mmexp.lab.rng import Rng
from mmexp.lab.world import Object, Scene, scenes
from tests.lab.making import spec

CHANCE = {
    "existence": 0.5,
    "count": 0.25,
    "attribute": 1 / 3,
    "absolute_position": 1 / 16,
    "relative_position": 0.5,
    "reading": 1 / 24,
    "multiple_choice": 1 / 4,
    "referring_box": 1 / 16,
    "referring_region": 1 / 24,
    "instruction": 1 / 32,
}
Asked = list[tuple[Scene, list[Turn]]]


def asked(number: int, per_family: int, seed: int, *, held_out: bool, families: object = FAMILIES) -> Asked:
    source = scenes(spec(), Rng(seed), held_out=held_out)
    questioner = Questioner(spec(), {family: per_family for family in families}, Rng(seed, 1))  # type: ignore[attr-defined]
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
    if question == "what is on the sign?":
        assert scene.sign
        return scene.sign.text
    if found := re.fullmatch(r"which box is (\w+)\?", question):
        return box(by_color[found[1]])
    if found := re.fullmatch(r"which object is in (\[.*\])\?", question):
        [thing] = [thing for thing in things if box(thing) == found[1]]
        return f"{thing['color']} {thing['shape']}"
    if found := re.fullmatch(r"describe (\w+)\.", question):
        thing = by_color[found[1]]
        return f"a {thing['size']} {thing['shape']} at {cell(thing)}"
    found = re.fullmatch(r"is (\w+) (left of|right of|above|below) (\w+)\?", question)
    assert found, question
    one, other = by_color[found[1]], by_color[found[3]]
    key, sign = {"left of": ("x", 1), "right of": ("x", -1), "above": ("y", 1), "below": ("y", -1)}[found[2]]
    assert one[key] != other[key], question
    return "yes" if sign * (int(other[key]) - int(one[key])) > 0 else "no"


def vars_of(item: Object) -> dict[str, object]:
    return {"color": item.color, "shape": item.shape, "size": item.size, "x": item.column, "y": item.row}


def box(thing: dict[str, object]) -> str:
    """Of a 4 x 4 grid in eighths: left, top, right, bottom."""
    left, top = 2 * int(str(thing["x"])), 2 * int(str(thing["y"]))
    return f"[{left} {top} {left + 2} {top + 2}]"


def told(turn: Turn) -> str:
    """The answer; of a letter the text of its choice."""
    return turn.choices["ABCD".index(turn.answer)] if turn.choices else turn.answer


def cell(thing: dict[str, object]) -> str:
    return "abcd"[int(str(thing["y"]))] + "1234"[int(str(thing["x"]))]


def test_every_answer_is_right() -> None:
    checked: Counter[str] = Counter()
    for scene, turns in asked(400, 4, 0, held_out=False, families=[*FAMILIES, "two_cells"]):
        for turn in turns:
            assert told(turn) == answer(scene, turn.question), (scene.content(), turn.question)
            checked[turn.family] += 1
    assert set(checked) == {*FAMILIES, "two_cells"} and min(checked.values()) > 250


def test_choices_are_different_and_in_any_order() -> None:
    letters: Counter[str] = Counter()
    for _, turns in asked(300, 2, 8, held_out=False, families=["multiple_choice", "lettered"]):
        for turn in turns:
            assert len(set(turn.choices)) == 4 and turn.response_format == "letter"
            letters[turn.answer] += 1
            if turn.family == "lettered":
                assert turn.question == f"which letter is {told(turn)}?"
    assert set(letters) == set("ABCD") and min(letters.values()) > 0.8 * letters.total() / 4


def test_practice_with_choices_is_right() -> None:
    """The lines are in the question of ``listed``, and behind that of ``matched``, whose answer names them all."""
    for _, turns in asked(50, 3, 11, held_out=False, families=["listed"]):
        for turn in turns:
            *lines, question = turn.question.split("\n")
            [right] = [line for line in lines if line.startswith(f"{turn.answer}. ")]
            assert question == f"which letter is {right.removeprefix(f'{turn.answer}. ')}?"
            assert lines[0] == "" and len(set(lines)) == 5 and not turn.choices
    orders = set()
    for _, turns in asked(50, 3, 12, held_out=False, families=["matched"]):
        for turn in turns:
            words = turn.answer.split()
            assert dict(zip(words[1::2], words[::2], strict=True)) == dict(zip("ABCD", turn.choices, strict=True))
            orders.add("".join(words[1::2]))
    assert len(orders) > 15


def test_the_key_word_comes_last() -> None:
    for _, turns in asked(50, 4, 1, held_out=False):
        assert all(re.search(r"(\w+|\])[?.]$", turn.question) for turn in turns)


def test_no_question_is_asked_twice_of_a_scene() -> None:
    for _, turns in asked(200, 4, 2, held_out=False):
        assert len({(turn.family, turn.question) for turn in turns}) == len(turns)


def test_response_formats_fit_the_answers() -> None:
    formats = {turn.family: turn.response_format for _, turns in asked(50, 1, 9, held_out=False) for turn in turns}
    own = {"multiple_choice": "letter", "referring_box": "box", "referring_region": "region", "instruction": None}
    assert formats == {**dict.fromkeys(FAMILIES, "word"), **own}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_answers_cannot_be_guessed_from_the_question(family: str) -> None:
    """A table of the commonest answer of each training question, and one fitted to the test itself."""
    train, test = (
        [
            ("\n".join([turn.question, *turn.choices]), turn.answer)
            for _, part in asked(number, per_scene, seed, held_out=held, families=[family])
            for turn in part
        ]
        for number, per_scene, seed, held in ((2000, 2, 3, False), (500, 1, 4, True))
    )
    assert len(test) > (300 if family == "reading" else 490)
    assert question_only_accuracy(train, test) < CHANCE[family] + 0.05
    if family not in ("multiple_choice", "instruction"):  # hardly two texts, or two answers, are the same
        assert question_only_accuracy(test, test) < CHANCE[family] + 0.08


def test_answers_of_a_family_are_even() -> None:
    said = defaultdict(Counter)
    for _, questions in asked(500, 1, 5, held_out=True):
        for turn in questions:
            said[turn.family][turn.answer] += 1
    assert max(said["existence"].values()) < 275 and max(said["relative_position"].values()) < 275
    assert max(said["count"].values()) < 150 and max(said["absolute_position"].values()) < 45


def test_captions_name_every_object_and_the_sign_once() -> None:
    for number, (scene, _) in enumerate(asked(50, 1, 6, held_out=False)):
        parts = caption(spec(), scene, Rng(7, number)).split(", ")
        expected = {f"a {t['size']} {t['color']} {t['shape']} at {cell(t)}" for t in map(vars_of, scene.objects)}
        if scene.sign:
            expected.add(f"a sign with {scene.sign.text} at {cell({'x': scene.sign.column, 'y': scene.sign.row})}")
        assert len(parts) == len(expected) and set(parts) == expected


def test_boxes_are_rounded_outwards() -> None:
    thirds = spec(image_size=96, grid=3)
    item = Object("red", "circle", "large", row=1, column=0)
    assert box_of(thirds, item) == "[0 2 3 6]"


def test_wrong_families_are_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'existence'"):
        Questioner(spec(), {"existance": 1}, Rng(0))
    with pytest.raises(UserError, match="at least 0"):
        Questioner(spec(), {"existence": -1}, Rng(0))


def test_a_family_without_questions_is_refused() -> None:
    lonely = spec(min_objects=1, max_objects=1, sign_percent=0)
    questioner = Questioner(lonely, {"relative_position": 1}, Rng(0))
    source = scenes(lonely, Rng(1), held_out=False)
    for _ in range(20):
        questioner.ask(next(source))
    with pytest.raises(UserError, match="no scene of this world has a question of family 'relative_position'"):
        questioner.check("lab world: split 'test'")
    questioner = Questioner(lonely, {"reading": 1}, Rng(0))
    questioner.ask(next(source))
    with pytest.raises(UserError, match=r"'reading'; a higher lab\.world\.sign_percent"):
        questioner.check("lab world: split 'test'")
