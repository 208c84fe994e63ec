"""Benchmarks whose questions are about videos, for models that were trained on images."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mmexp.errors import UserError
from mmexp.evaluation.benchmark import Benchmark, Question
from mmexp.instantiate import instantiate
from mmexp.model.video.frames import Video


class VideoBenchmark(Benchmark):
    """Questions about videos: lines ``{"question_id", "video", "question", "answer" or "answers"}``.

    ``video`` is a file, a folder of frames or a list of frames, relative to ``video_folder``. Further keys are those of
    ``Benchmark``.

    Args:
        video_folder: folder that ``video`` is relative to.
        video: config node of what joins the frames (group ``video``).
        annotations, metric, response_format, max_new_tokens, limit: see ``Benchmark``.
    """

    def __init__(
        self,
        *,
        annotations: str,
        video_folder: str,
        video: Mapping[str, Any],
        metric: Mapping[str, Any],
        response_format: str | None,
        max_new_tokens: int,
        limit: int | None,
    ) -> None:
        super().__init__(
            annotations=annotations,
            image_folder=video_folder,
            metric=metric,
            response_format=response_format,
            max_new_tokens=max_new_tokens,
            limit=limit,
        )
        from mmexp.model.video.aggregation import Aggregation

        self.aggregation = instantiate(video, "video", expect=Aggregation)

    def check_files(self) -> None:
        """Raises ``UserError`` when the annotations or the video folder do not exist."""
        if self.annotations.is_file() and not self.image_folder.is_dir():
            raise UserError(f"video_folder: no such folder '{self.image_folder}'")
        super().check_files()

    def _question(self, record: Mapping[str, Any], origin: str) -> Question:
        question = super()._question({**record, "image": None}, origin)
        return replace(question, video=self._video(record, origin))

    def _video(self, record: Mapping[str, Any], origin: str) -> Video:
        """Raises ``UserError`` for a key that is missing or of a wrong type, and for files that do not exist."""
        if "video" not in record:
            raise UserError(f"{origin}: no 'video'; the record has {', '.join(record)}")
        given = record["video"]
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise UserError(f"{origin}: 'video' is {json.dumps(given)[:60]}, but must be a path or a list of frames")
        paths = tuple(self.image_folder / name for name in names)
        for path in paths:
            if not path.exists():
                raise UserError(f"{origin}: no {'video' if isinstance(given, str) else 'frame'} '{path}'")
        return paths if isinstance(given, list) else paths[0]
