"""Frames of a video: which ones, from files, folders and lists, and what is wrong with those that cannot be read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmexp.errors import UserError
from mmexp.lab.video_stage import write_video
from mmexp.model.video.frames import middle_frames, read_frames, shown


def official(total: int, wanted: int) -> list[int]:
    """FreeVA's get_seq_frames at commit 53e3849, with its caller's min(total, wanted)."""
    wanted = min(total, wanted)
    size = float(total - 1) / wanted
    ends = [int(np.round(size * index)) for index in range(wanted + 1)]
    return [(ends[index] + ends[index + 1]) // 2 for index in range(wanted)]


def test_the_middles_of_segments_are_those_of_the_official_code() -> None:
    for total in range(1, 120):
        for wanted in (1, 2, 3, 4, 5, 7, 8, 100):
            found = middle_frames(total, wanted)
            assert found == official(total, wanted)
            assert len(found) == min(total, wanted)
            assert found == sorted(found)
            assert 0 <= found[0] and found[-1] < total
    assert middle_frames(100, 4) == [12, 37, 62, 86]


def frame(number: int, side: int = 16) -> np.ndarray:
    """A picture that says its number: noise of that seed."""
    return np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.fixture(params=["file", "folder", "list"])
def video(request: pytest.FixtureRequest, tmp_path: Path):
    frames = [frame(number) for number in range(12)]
    if request.param == "file":
        write_video(tmp_path / "clip.mkv", frames, 8)
        return tmp_path / "clip.mkv"
    for number, pixels in enumerate(frames):
        Image.fromarray(pixels).save(tmp_path / f"frame_{number}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    if request.param == "folder":
        return tmp_path
    return tuple(tmp_path / f"frame_{number}.png" for number in range(12))


@pytest.mark.parametrize("wanted", [1, 5, 12, 40])
def test_files_folders_and_lists_give_the_same_frames(video, wanted) -> None:
    found = read_frames(video, wanted, "qa.jsonl:1")
    assert [image.mode for image in found] == ["RGB"] * len(found)
    assert [np.asarray(image).tolist() for image in found] == [frame(n).tolist() for n in middle_frames(12, wanted)]


def test_a_lossy_file_with_its_number_of_frames_is_read_at_the_same_places(tmp_path) -> None:
    import av

    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 64
        for number in range(20):
            pixels = np.full((64, 64, 3), 10 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    found = read_frames(tmp_path / "clip.mp4", 4, "x")
    brightness = [round(float(np.asarray(image).mean()) / 10) for image in found]
    assert brightness == middle_frames(20, 4)


def message(video, wanted: int = 4) -> str:
    with pytest.raises(UserError) as caught:
        read_frames(video, wanted, "qa.jsonl:7")
    text = str(caught.value)
    assert text.startswith("qa.jsonl:7: ")
    assert "\n" not in text
    return text


def test_videos_that_cannot_be_read_are_one_line_with_their_place(tmp_path) -> None:
    assert f"no video '{tmp_path / 'none.mp4'}'" in message(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("not a video")
    assert "cannot be decoded" in message(tmp_path / "text.mp4")
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert "cannot be decoded" in message(tmp_path / "empty.mp4")
    write_video(tmp_path / "whole.mkv", [frame(number, 64) for number in range(12)], 8)
    half = (tmp_path / "whole.mkv").read_bytes()[:600]
    (tmp_path / "half.mkv").write_bytes(half)
    assert "decode" in message(tmp_path / "half.mkv")
    (tmp_path / "folder").mkdir()
    assert "has no frames" in message(tmp_path / "folder")
    (tmp_path / "folder" / "1.png").write_text("not an image")
    assert "cannot be read" in message(tmp_path / "folder")
    assert "cannot be read" in message((tmp_path / "gone.png",))
    assert "has no frames" in message(())


def test_a_file_without_pictures_is_refused(tmp_path) -> None:
    import av

    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    assert "holds no pictures" in message(tmp_path / "sound.wav")


def test_a_truncated_file_is_no_shorter_video(tmp_path) -> None:
    """The header of an mp4 says how many frames there are; the last ones are missing."""
    import av

    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 64
        for number in range(40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame(number, 64), format="rgb24")))
        container.mux(stream.encode())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "cannot be decoded" in message(path)


def test_how_a_video_is_shown() -> None:
    assert shown(Path("a.mp4")) == "a.mp4"
    assert shown((Path("1.png"), Path("2.png"), Path("3.png"))) == "1.png and 2 more frames"
