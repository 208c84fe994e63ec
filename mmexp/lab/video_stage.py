"""Clips of the drawn world on disk: real video files, and questions in the format of video benchmarks."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmexp.errors import UserError
from mmexp.files import replacing, write_text
from mmexp.lab.clips import FAMILIES, Clip, draw_clip, draw_frames
from mmexp.lab.rng import Rng
from mmexp.lab.world import WorldSpec

FOLDER, QUESTIONS = "videos", "test.jsonl"
LEAST_FRAMES = 8


class VideoStage:
    """Draws ``videos/*.mkv`` and ``test.jsonl``: for each clip which way something moves, what is first, how many.

    The files are FFV1 in Matroska, which loses nothing: decoded frames are the drawn ones, bit for bit, and those come
    from the seed alone. Nothing is trained on clips; they are for models that were trained on images.

    Args:
        world: node ``lab.world``.
        clips: how many.
        frames: of each clip, at least 8.
        frame_rate: frames per second, for players.
        seed: of all drawing.

    Raises:
        UserError: a world that cannot be drawn, no clip, too few frames.
    """

    VERSION = 1

    def __init__(self, *, world: Mapping[str, int], clips: int, frames: int, frame_rate: int, seed: int) -> None:
        self.spec = WorldSpec.from_config(world)
        given = {"clips": (clips, 1), "frames": (frames, LEAST_FRAMES), "frame_rate": (frame_rate, 1)}
        for name, (value, least) in given.items():
            if value < least:
                raise UserError(f"lab video: {name}: {value} must be at least {least}")
        if min(self.spec.grid, self.spec.max_objects) < 2:
            raise UserError(
                "lab video: a clip has at least 2 objects; lab.world.grid and max_objects must be at least 2"
            )
        self.clips, self.frames, self.frame_rate, self.seed = clips, frames, frame_rate, seed

    def run(self, workdir: Path, runtime: Mapping[str, Any]) -> None:
        """Write everything; videos that a killed run left are kept."""
        drawn = [draw_clip(self.spec, self.frames, Rng(self.seed, 40, number)) for number in range(self.clips)]
        lines = [json.dumps(record) for record in question_records(drawn, Rng(self.seed, 41))]
        write_text(workdir / QUESTIONS, "\n".join(lines) + "\n")
        (workdir / FOLDER).mkdir(exist_ok=True)
        progress = runtime.get("progress") or (lambda step, total: None)
        for number, clip in enumerate(drawn):
            path = workdir / FOLDER / video_name(number)
            if not path.exists():
                write_video(path, draw_frames(self.spec, clip, Rng(self.seed, 42, number)), self.frame_rate)
            progress(number + 1, self.clips)


def video_name(number: int) -> str:
    return f"{number:05d}.mkv"


def question_records(clips: Iterable[Clip], rng: Rng) -> Iterator[dict[str, Any]]:
    """One question of each family per clip: of what can be asked of it, what was asked least so far.

    So each answer of a question text stays as frequent as the others, and nobody can do better than chance without
    the clip.
    """
    asked: Counter[tuple[str, str]] = Counter()
    for number, clip in enumerate(clips):
        for family, candidates_of in FAMILIES.items():
            candidates = candidates_of(clip)
            least = min(asked[candidate] for candidate in candidates)
            question, answer = rng.pick([candidate for candidate in candidates if asked[candidate] == least])
            asked[(question, answer)] += 1
            yield {
                "question_id": f"{number:05d}_{family}",
                "video": video_name(number),
                "question": question,
                "answer": answer,
                "family": family,
                "format": "word",
            }


def write_video(path: Path, frames: Iterable[np.ndarray], frame_rate: int) -> None:
    """(side, side, 3) uint8 frames as a lossless file that appears whole or not at all."""
    import av

    pictures = [av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0") for frame in frames]
    with (
        replacing(path) as temporary,
        av.open(str(temporary), "w", format="matroska", options={"fflags": "+bitexact"}) as container,
    ):
        stream: Any = container.add_stream("ffv1", rate=frame_rate)
        stream.pix_fmt, stream.width, stream.height = "bgr0", pictures[0].width, pictures[0].height
        for picture in [*pictures, None]:
            container.mux(stream.encode(picture))
