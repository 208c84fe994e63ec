"""Clips: the same from the seed, what is asked is what is drawn, and nothing can be guessed from the question."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from mmexp.errors import UserError
from mmexp.lab.clips import DIRECTIONS, FAMILIES, draw_clip, draw_frames, place_of
from mmexp.lab.questions import words
from mmexp.lab.rng import Rng
from mmexp.lab.video_stage import VideoStage, question_records
from mmexp.lab.world import COLORS
from mmexp.model.video.frames import read_frames
from tests.lab.making import WORLD, spec, stage_node

SPEC = spec()

FRAMES = 16


def clips(number: int):
    return [draw_clip(SPEC, FRAMES, Rng(3, 40, place)) for place in range(number)]


def stage(**changes) -> VideoStage:
    return VideoStage(**{"world": WORLD, "clips": 6, "frames": FRAMES, "frame_rate": 8, "seed": 0} | changes)


def test_files_hold_the_drawn_frames_bit_for_bit(tmp_path: Path) -> None:
    stage().run(tmp_path, {})
    for number in (0, 5):
        drawn = list(draw_frames(SPEC, draw_clip(SPEC, FRAMES, Rng(0, 40, number)), Rng(0, 42, number)))
        read = read_frames(tmp_path / "videos" / f"{number:05d}.mkv", 100, "x")
        assert len(read) == FRAMES
        assert all(np.asarray(image).tobytes() in {frame.tobytes() for frame in drawn} for image in read)


def test_a_killed_stage_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        stage().run(tmp_path / name, {})
    before = {path: path.read_bytes() for path in (tmp_path / "killed").rglob("*.*")}
    (tmp_path / "killed/videos/00004.mkv").unlink()
    (tmp_path / "killed/videos/00005.tmp").write_bytes(b"half")
    stage().run(tmp_path / "killed", {})
    assert all(path.read_bytes() == content for path, content in before.items())
    assert {p.name for p in (tmp_path / "whole").rglob("*.mkv")} == {
        p.name for p in (tmp_path / "killed").rglob("*.mkv")
    }


def test_movers_go_where_the_answer_says_and_are_seen_alone() -> None:
    """In the drawn pixels, not in the record."""
    seen = set()
    for clip in clips(40):
        frames = [frame.astype(int) for frame in draw_frames(SPEC, clip, Rng(9))]
        for mover in clip.movers:
            near = [
                np.abs(frame - np.array(COLORS[mover.color])).max(-1) <= SPEC.noise + SPEC.color_jitter
                for frame in frames
            ]
            assert not any(mask.any() for mask in near[: mover.start])
            assert all(mask.any() for mask in near[mover.start :])
            first, last = (np.argwhere(near[number]).mean(0) for number in (mover.start, FRAMES - 1))
            rows, columns = DIRECTIONS[mover.way]
            moved = (last - first) * [rows, columns]
            assert moved.sum() > SPEC.image_size / 2
            seen.add(mover.way)
        assert [mover.start for mover in clip.movers] == sorted({mover.start for mover in clip.movers})
    assert seen == set(DIRECTIONS)


def test_a_place_is_inside_the_image() -> None:
    for clip in clips(60):
        for mover in clip.movers:
            for number in range(mover.start, FRAMES):
                top, left = place_of(SPEC, clip, mover, number)
                assert 0 <= min(top, left) and max(top, left) < SPEC.image_size


def test_the_sampled_frames_tell_who_is_first() -> None:
    from mmexp.model.video.frames import middle_frames

    for clip in clips(60):
        starts = [sum(number < mover.start for number in middle_frames(FRAMES, 8)) for mover in clip.movers]
        assert len(set(starts)) == len(starts)


def test_answers_cannot_be_guessed_from_the_question() -> None:
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    families = Counter()
    for record in question_records(clips(400), Rng(1)):
        answers[record["question"]][record["answer"]] += 1
        families[record["family"]] += 1
    assert families == dict.fromkeys(FAMILIES, 400)
    for question, counts in answers.items():
        assert len(counts) == 4, question
        assert max(counts.values()) / counts.total() < 0.36, question


def test_every_word_is_in_the_vocabulary() -> None:
    known = set(words(SPEC))
    for record in question_records(clips(40), Rng(1)):
        assert set(record["question"].removesuffix("?").split()) | {record["answer"]} <= known


def test_records_are_video_questions(tmp_path: Path) -> None:
    stage().run(tmp_path, {})
    lines = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    assert len(lines) == 6 * len(FAMILIES)
    assert all((tmp_path / "videos" / line["video"]).is_file() for line in lines)


def test_the_shipped_stage_is_of_the_shipped_world() -> None:
    shipped = VideoStage(**stage_node("lab_video"))
    assert shipped.spec == VideoStage(**{**stage_node("lab_video"), "world": stage_node("lab_world")["world"]}).spec


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"clips": 0}, "clips: 0"), ({"frames": 7}, "frames: 7"), ({"frame_rate": 0}, "frame_rate: 0")],
)
def test_mistakes_are_named(changes, text) -> None:
    with pytest.raises(UserError, match=text):
        stage(**changes)
