"""Frames of a video: a file that PyAV decodes, a folder of images, or a list of images."""

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmexp.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

Video = Path | tuple[Path, ...]
"""A video file, a folder of frames, or frames in their order."""


def read_frames(video: Video, wanted: int, origin: str) -> "list[Image.Image]":
    """RGB frames in the middle of ``wanted`` equal segments; of a shorter video as many as it has frames.

    Args:
        video: a folder is read in the order of its file names, numbers in them as numbers: ``2.png`` before ``10.png``.
        origin: ``file:line`` that names the video.

    Raises:
        UserError: no such file, no frames, or a file that cannot be decoded to its end.
    """
    if isinstance(video, Path) and not video.is_dir():
        return _decoded(video, wanted, origin)
    paths = frame_files(video) if isinstance(video, Path) else list(video)
    if not paths:
        raise UserError(f"{origin}: video '{shown(video)}' has no frames ({', '.join(FRAME_SUFFIXES)})")
    return [_image(paths[index], origin) for index in middle_frames(len(paths), wanted)]


def shown(video: Video) -> str:
    """A video in messages and results: its path, or the first frame's with how many follow."""
    if isinstance(video, Path):
        return str(video)
    return f"{video[0]} and {len(video) - 1} more frames" if len(video) > 1 else "".join(map(str, video))


def frame_files(folder: Path) -> list[Path]:
    """Images of a folder, in the order of their names with numbers as numbers."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in FRAME_SUFFIXES]
    return sorted(found, key=lambda path: _natural(path.stem))


def _natural(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _image(path: Path, origin: str) -> "Image.Image":
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"{origin}: frame '{path}' cannot be read: {error}") from None


def _decoded(path: Path, wanted: int, origin: str) -> "list[Image.Image]":
    with _readable(path, origin):
        total = _count(path)
    if not total:
        raise UserError(f"{origin}: video '{path}' has no frame that can be decoded")
    indices = middle_frames(total, wanted)
    with _readable(path, origin):
        frames = {index: frame.to_image() for index, frame in _decode(path, indices[-1]) if index in indices}
    if len(frames) < len(set(indices)):
        raise UserError(
            f"{origin}: video '{path}' claims {total} frames but cannot be decoded up to frame {indices[-1]}"
        )
    return [frames[index] for index in indices]


def _count(path: Path) -> int:
    """What the container says, or, where it says nothing (Matroska), what can be decoded."""
    import av

    with av.open(str(path)) as container:
        announced = _stream(container).frames
    return announced or sum(1 for _ in _decode(path, None))


def _decode(path: Path, last: int | None) -> Iterator[tuple[int, Any]]:
    """(index, frame) from the beginning up to ``last``; seeking is not exact in every format."""
    import av

    with av.open(str(path)) as container:
        stream = _stream(container)
        stream.thread_type = "AUTO"
        for index, frame in enumerate(container.decode(stream)):
            yield index, frame
            if index == last:
                return


def _stream(container: Any) -> Any:
    if not container.streams.video:
        raise ValueError("it holds no pictures")
    return container.streams.video[0]


@contextmanager
def _readable(path: Path, origin: str) -> Iterator[None]:
    """FFmpeg's errors as one line."""
    import av

    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{origin}: no video '{path}'") from None
    except (av.FFmpegError, ValueError, OSError) as error:
        raise UserError(f"{origin}: video '{path}' cannot be decoded: {' '.join(str(error).split())}") from None


def middle_frames(total: int, wanted: int) -> list[int]:
    """Indices of the middle frame of each of ``wanted`` equal segments of 0..total-1, in order.

    FreeVA's rule (``get_seq_frames``, which Dense Connector has too): borders are rounded, ties to even, and the middle
    of two frames is the earlier one. A video with fewer frames gives as many as it has, so that not all of a short one
    need be among them.
    """
    wanted = min(total, wanted)
    segment = (total - 1) / wanted
    borders = [round(segment * index) for index in range(wanted + 1)]
    return [(start + end) // 2 for start, end in itertools.pairwise(borders)]
