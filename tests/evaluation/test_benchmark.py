"""Reading questions, with one-line errors that name file and line; scoring; results on disk."""

import json

import numpy as np
import pytest
from PIL import Image

from mmexp.errors import UserError
from mmexp.evaluation.benchmark import Benchmark
from mmexp.evaluation.metrics import Answers
from mmexp.evaluation.result import aggregate, read_predictions, read_result, write_predictions, write_result
from tests.rules import metric_node


def record(**changes):
    return {"question_id": 7, "image": "a.png", "question": "is it red?", "answer": "yes", "family": "color"} | changes


@pytest.fixture
def make(tmp_path):
    """Benchmark over the given lines (records or raw text)."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def build(*lines, **changes):
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        (tmp_path / "qa.jsonl").write_text(text)
        arguments = {
            "annotations": str(tmp_path / "qa.jsonl"),
            "image_folder": str(tmp_path),
            "metric": metric_node("lab_family", "exact"),
            "response_format": "word",
            "max_new_tokens": 4,
            "limit": None,
        }
        return Benchmark(**arguments | changes)

    return build


def test_questions(make, tmp_path):
    questions = make(
        record(),
        "",
        record(question_id="b", image=None, answer="no", format=None),
        record(question_id="c", choices=["cat", "dog"], answer="B", format="letter"),
        {"question_id": "d", "image": "a.png", "question": "?", "answers": ["x", "y", "y"], "family": "f"},
    ).questions()
    first, blind, lettered, many = questions
    assert (first.id, first.image, first.turn.question) == ("7", tmp_path / "a.png", "is it red?")
    assert (first.turn.response_format, first.turn.family, first.references) == ("word", "color", ("yes",))
    assert (blind.image, blind.turn.response_format, blind.origin) == (None, None, f"{tmp_path}/qa.jsonl:3")
    assert lettered.turn.question == "is it red?\nA. cat\nB. dog"
    assert lettered.turn.response_format == "letter"
    assert (many.references, many.turn.answer) == (("x", "y", "y"), "y")


def test_limit_takes_the_first(make):
    lines = [record(question_id=number) for number in range(5)]
    assert [question.id for question in make(*lines, limit=2).questions()] == ["0", "1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"qa.jsonl:2: not JSON"),
        ("[1]", r"qa.jsonl:2: a list, not an object"),
        ({"question_id": 1}, r"qa.jsonl:2: no 'answer'; there is question_id"),
        (record(answer=3), r"qa.jsonl:2: 'answer' is 3, and should be text"),
        (record(answers=[]), r"qa.jsonl:2: 'answers' is \[\], and should be a list of texts"),
        (record(image="b.png"), r"qa.jsonl:2: no image '.*b.png'"),
        (record(family=""), r"qa.jsonl:2: no 'family'"),
        (record(choices=["one"]), r"qa.jsonl:2: 'choices' is"),
    ],
)
def test_bad_lines_are_named(make, line, message):
    with pytest.raises(UserError, match=message) as caught:
        make(record(), line).questions()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": metric_node("pope", "lmms_eval")}, "must be 'yes' or 'no', not 'red'"),
        ({"metric": metric_node("mme", "lmms_eval")}, "must be 'yes' or 'no'"),
        ({"metric": metric_node("vqav2", "lmms_eval")}, "'answers' has 1"),
        ({"annotations": "nowhere.jsonl"}, "annotations: no file 'nowhere.jsonl'"),
        ({"image_folder": "nowhere"}, "image_folder: no folder 'nowhere'"),
    ],
)
def test_bad_benchmarks(make, changes, message):
    with pytest.raises(UserError, match=message):
        make(record(answer="red"), **changes).questions()


def test_empty_file_and_broken_pairs(make):
    with pytest.raises(UserError, match="no questions"):
        make().questions()
    pair = [record(question_id="p", family="count", question=text) for text in ("one?", "two?")]
    mme = {"metric": metric_node("mme", "lmms_eval")}
    assert len(make(*pair, **mme).questions()) == 2
    with pytest.raises(UserError, match=r"two questions per image.*\(limit is 1\)"):
        make(*pair, **mme, limit=1).questions()
    with pytest.raises(UserError, match="limit: at least 1"):
        make(record(), limit=0)


def test_scoring(make):
    benchmark = make(record(), record(question_id=8, answer="no"), record(question_id=9, family="size", answer="big"))
    answers = benchmark.answers(benchmark.questions(), ["Yes.", "yes", "big"])
    assert answers.scores.tolist() == [1, 0, 1]
    assert benchmark.metrics("lab", answers) == {"lab": 75, "color": 50, "size": 100}
    assert list(benchmark.metrics("lab", answers)) == ["lab", "color", "size"]


def test_aggregate():
    nodes = {"overall": {"metrics": {"gqa": 1, "mme_perception": 0.05}}, "other": {"metrics": {"absent": 1}}}
    assert aggregate({"gqa": 60.0, "mme_perception": 1500.0}, nodes) == {"overall": 67.5}
    arrays = aggregate({"gqa": np.array([60.0, 0]), "mme_perception": np.array([1500.0, 0])}, nodes)
    assert arrays["overall"].tolist() == [67.5, 0]


def test_predictions_round_trip(tmp_path):
    parts = {
        name: Answers(
            question_ids=["1", "1"],
            families=["", "x"],
            images=["", "a.png"],
            questions=["q\n", "\u00e9"],
            predictions=["", name],
            answers=["a", "b"],
            scores=np.array([0.3, 1.0]),
        )
        for name in ("pope", "gqa")
    }
    write_predictions(tmp_path, parts)
    back = read_predictions(tmp_path)
    assert list(back) == ["pope", "gqa"]
    assert back["gqa"].predictions == ["", "gqa"]
    assert back["gqa"].scores.tolist() == [0.3, 1.0]
    assert back["pope"].questions == ["q\n", "\u00e9"]
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.parquet"]


def test_result_is_valid_json_and_whole(tmp_path):
    write_result(tmp_path, {"metrics": {"a": float("nan"), "b": 1.5}})
    assert read_result(tmp_path) == {"metrics": {"a": None, "b": 1.5}}
    with pytest.raises(TypeError):
        write_result(tmp_path, {"metrics": object()})
    assert read_result(tmp_path)["metrics"]["b"] == 1.5
    assert len(list(tmp_path.iterdir())) == 1


def test_missing_or_broken_files_are_one_line(tmp_path):
    with pytest.raises(UserError, match="no result"):
        read_result(tmp_path)
    (tmp_path / "result.json").write_text("{")
    (tmp_path / "predictions.parquet").write_text("x")
    for read in (read_result, read_predictions):
        with pytest.raises(UserError, match="not readable"):
            read(tmp_path)
