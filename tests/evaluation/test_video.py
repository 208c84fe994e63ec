"""Questions about videos: read, shown to a real (tiny, random) model as views, budgeted, scored without a judge."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmexp.errors import UserError
from mmexp.evaluation.generation import generate_answers
from mmexp.evaluation.result import read_predictions, read_result
from mmexp.evaluation.stage import EvaluateStage
from mmexp.evaluation.video_benchmark import VideoBenchmark
from mmexp.evaluation.viewing import VideoViewer, shown_by
from mmexp.instantiate import instantiate
from mmexp.interfaces import ImageBatch
from mmexp.lab.video_stage import write_video
from mmexp.model.build import load_model
from tests.rules import make_metric, metric_node
from tests.tiny import NUM_VISUAL, TEMPLATE, convnext_node, runtime_node, save_checkpoint, tiny_spec

MAX_POOL = {"_target_": "mmexp.model.video.aggregation.MaxPool", "frames": 4, "kernel": 2}
MEAN = {"_target_": "mmexp.model.video.aggregation.Mean", "frames": 4}
CONCAT = {"_target_": "mmexp.model.video.aggregation.Concat", "frames": 4}


def frames(seed: int, number: int = 10) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (number, 32, 32, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> dict[str, Any]:
    spec = tiny_spec()
    spec["llm"]["checkpoint"] = save_checkpoint(tmp_path_factory.mktemp("llm"))
    return spec


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two videos as files, one of them as a list of frames too, and one with 2 frames."""
    folder = tmp_path_factory.mktemp("videos")
    for number, length in ((0, 10), (1, 10), (2, 2)):
        write_video(folder / f"{number}.mkv", frames(number, length), 8)
    for place, pixels in enumerate(frames(0)):
        Image.fromarray(pixels).save(folder / f"frame{place}.png")
    return folder


def annotations(folder, *records: dict[str, Any]) -> str:
    path = folder / "qa.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records))
    return str(path)


def record(number: int, video: Any, question: str = "is the square red ?", **changes: Any) -> dict[str, Any]:
    return {"question_id": number, "video": video, "question": question, "answer": "red", "family": "color"} | changes


def node(path: str, folder, video: dict[str, Any] = MAX_POOL, **changes: Any) -> dict[str, Any]:
    return {
        "_target_": "mmexp.evaluation.video_benchmark.VideoBenchmark",
        "annotations": path,
        "video_folder": str(folder),
        "video": video,
        "metric": metric_node("video_qa", "exact"),
        "response_format": None,
        "max_new_tokens": 3,
        "limit": None,
    } | changes


def benchmark(path: str, folder, video: dict[str, Any] = MAX_POOL, **changes: Any) -> VideoBenchmark:
    return instantiate(node(path, folder, video, **changes), "benchmarks.v")


def stage(spec, benchmarks: dict[str, Any], **changes: Any) -> EvaluateStage:
    return EvaluateStage(
        **{
            "model": spec,
            "init_from": None,
            "benchmarks": benchmarks,
            "aggregates": {},
            "template": dict(TEMPLATE),
            "use_images": True,
            "seed": 0,
            "num_threads": None,
            "precision": "fp32",
        }
        | changes
    )


@pytest.mark.parametrize("video", [MAX_POOL, MEAN, CONCAT], ids=["max_pool", "mean", "concat"])
def test_a_video_file_and_its_list_of_frames_get_the_same_answers(spec, data, tmp_path, video) -> None:
    names = [f"frame{place}.png" for place in range(10)]
    path = annotations(tmp_path, record(1, "0.mkv"), record(2, names), record(3, "1.mkv"), record(4, "2.mkv"))
    (tmp_path / "out").mkdir()
    stage(spec, {"videos": node(path, data, video)}).run(tmp_path / "out", runtime_node(tmp_path, eval_batch_size=8))
    answers, result = read_predictions(tmp_path / "out")["videos"], read_result(tmp_path / "out")
    assert answers.predictions[0] == answers.predictions[1]
    assert answers.images[0].endswith("0.mkv") and answers.images[1].endswith("frame0.png and 9 more frames")
    tokens = {"MaxPool": 4 * NUM_VISUAL // 2, "Mean": NUM_VISUAL, "Concat": 4 * NUM_VISUAL}
    assert result["costs"]["visual_tokens"] == tokens[video["_target_"].rpartition(".")[2]]


def test_the_visual_tokens_are_those_of_the_frames_seen_as_images(spec, data, tmp_path) -> None:
    model = load_model(spec, None).eval()
    questions = benchmark(annotations(tmp_path, record(1, "0.mkv"), record(2, "2.mkv")), data).questions()
    viewer = VideoViewer(model, instantiate(MAX_POOL, "video"))
    for question, expected in zip(questions, (middle(frames(0)), middle(frames(2, 2))), strict=True):
        image = viewer.load(question)
        assert image is not None and image.num_views == len(expected)
        views = torch.from_numpy(np.stack(expected).transpose(0, 3, 1, 2).copy())
        alone = model.visual_tokens(
            ImageBatch(views={"clip": views}, view_counts=[1] * len(views), sizes=[(32, 32)] * 4)
        )
        pooled = alone.unflatten(0, (len(views), NUM_VISUAL // 2, 2)).amax(2).flatten(0, 1)
        with shown_by(model, viewer):
            batch = ImageBatch(
                views={"clip": torch.from_numpy(image.views["clip"])}, view_counts=[len(views)], sizes=[(32, 32)]
            )
            assert torch.allclose(model.visual_tokens(batch), pooled, atol=1e-5)
        assert viewer.num_tokens(image) == len(pooled)
    assert model.vision.assembler is not viewer.assembler


def middle(pictures: list[np.ndarray]) -> list[np.ndarray]:
    from mmexp.model.video.frames import middle_frames

    return [pictures[place] for place in middle_frames(len(pictures), 4)]


def test_questions_of_a_video_decode_it_once_and_batches_change_nothing(spec, data, tmp_path, monkeypatch) -> None:
    from mmexp.evaluation import viewing

    opened = []
    original = viewing.read_frames
    monkeypatch.setattr(viewing, "read_frames", lambda *given: (opened.append(given[0]), original(*given))[1])
    texts = ["is the square red ?", "what color is the square ?", "is the square blue ?"]
    path = annotations(tmp_path, *(record(n, f"{n % 2}.mkv", texts[n // 2]) for n in range(6)))
    model, questions = load_model(spec, None).eval(), benchmark(path, data).questions()
    aggregation = instantiate(MAX_POOL, "video")

    def ask(batch_size: int) -> list[str]:
        return generate_answers(
            model, TEMPLATE, questions, use_images=True, batch_size=batch_size, max_new_tokens=3,
            progress=lambda more: None, aggregation=aggregation,
        )  # fmt: skip

    one = ask(1)
    assert len(opened) == 2
    assert ask(64) == one


def test_two_encoders_see_the_same_frames(data, tmp_path) -> None:
    spec = tiny_spec(encoders={**tiny_spec()["encoders"], "convnext": convnext_node(image_size=64)})
    spec["fusion"] = {
        "_target_": "mmexp.model.fusion.sequence_append.SequenceAppend",
        "grid": None,
        "route": "bilinear",
    }
    spec["llm"]["checkpoint"] = save_checkpoint(tmp_path / "llm")
    model = load_model(spec, None)
    question = benchmark(annotations(tmp_path, record(1, "0.mkv")), data).questions()[0]
    image = VideoViewer(model, instantiate(MEAN, "video")).load(question)
    assert image is not None
    assert {name: view.shape for name, view in image.views.items()} == {
        "clip": (4, 3, 32, 32),
        "convnext": (4, 3, 64, 64),
    }


def test_a_video_that_exceeds_the_context_is_an_error_with_the_numbers(spec, data, tmp_path) -> None:
    short = json.loads(json.dumps(spec))
    path = annotations(tmp_path, record(1, "0.mkv"))
    run = stage(short, {"v": node(path, data, CONCAT | {"frames": 10}, max_new_tokens=400)})
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError) as caught:
        run.run(tmp_path / "out", runtime_node(tmp_path))
    text = str(caught.value)
    assert "qa.jsonl:1: 160 visual tokens" in text and "400 for the answer" in text and "512 positions" in text
    assert "10 frames of 16 tokens each; at most 6 frames fit (video.frames)" in text
    assert "video=mean" in text and "\n" not in text


def test_a_long_question_about_an_image_is_not_cut_off_either(spec, data, tmp_path) -> None:
    line = {"question_id": 1, "image": "frame0.png", "question": "red " * 600, "answer": "x", "family": "color"}
    plain = node(annotations(tmp_path, line), data) | {
        "_target_": "mmexp.evaluation.benchmark.Benchmark",
        "image_folder": str(data),
    }
    plain = {key: value for key, value in plain.items() if key not in ("video", "video_folder")}
    (tmp_path / "out").mkdir()
    with pytest.raises(
        UserError, match=r"16 visual tokens, .* positions of the LLM's context; choose fewer visual tokens"
    ):
        stage(spec, {"v": plain}).run(tmp_path / "out", runtime_node(tmp_path))


def test_the_blind_run_needs_no_frames(spec, tmp_path) -> None:
    (tmp_path / "none.mp4").write_text("never read")
    path = annotations(tmp_path, record(1, "none.mp4"))
    (tmp_path / "out").mkdir()
    stage(spec, {"v": node(path, tmp_path)}, use_images=False).run(tmp_path / "out", runtime_node(tmp_path))
    assert read_result(tmp_path / "out")["costs"]["visual_tokens"] == 0


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"video": "gone.mp4"}, r"qa\.jsonl:1: no video '.*gone\.mp4'"),
        ({"video": ["frame0.png", "gone.png"]}, r"qa\.jsonl:1: no frame '.*gone\.png'"),
        ({"video": []}, "'video' is \\[\\], but must be a path or a list of frames"),
        ({"video": 3}, "'video' is 3, but must be"),
    ],
)
def test_mistakes_in_annotations_have_their_line(data, tmp_path, changes, text) -> None:
    with pytest.raises(UserError, match=text):
        benchmark(annotations(tmp_path, record(1, "0.mkv") | changes), data).questions()


def test_a_record_about_an_image_says_what_is_missing(data, tmp_path) -> None:
    line = {"question_id": 1, "image": "frame0.png", "question": "q", "answer": "a"}
    with pytest.raises(UserError, match="no 'video'; the record has question_id, image"):
        benchmark(annotations(tmp_path, line), data).questions()
    with pytest.raises(UserError, match="video_folder: no such folder"):
        benchmark(annotations(tmp_path, line), data / "none").questions()


def test_scores_without_a_judge() -> None:
    exact, contains = make_metric("video_qa", "exact"), make_metric("video_qa", "contains")
    assert [exact.score(said, ["Dog"]) for said in ("dog.", " Dog ", "a dog", "cat")] == [1, 1, 0, 0]
    assert [contains.score(said, ["dog"]) for said in ("It is a dog.", "dogs", "hot dog stand", "cat")] == [1, 0, 1, 0]
    assert contains.score("two men, one boat", ["one boat", "a boat"]) == 1
