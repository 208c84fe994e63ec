"""What a model is shown with a question: an image as in training, or the frames of a video as views of one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from mmexp.data.images import ImageReader, LoadedImage
from mmexp.errors import UserError
from mmexp.evaluation.benchmark import Question
from mmexp.model.build import token_counter
from mmexp.model.mllm import Mllm
from mmexp.model.video.aggregation import Aggregation
from mmexp.model.video.frames import Video, read_frames


class Viewer(Protocol):
    """Loads what a question is about, and knows how many tokens it costs."""

    assembler: Any
    """Joins the tokens of views."""

    def load(self, question: Question) -> LoadedImage | None:
        """None for a text-only question. Raises ``UserError`` for what cannot be read."""

    def num_tokens(self, image: LoadedImage) -> int:
        """Visual tokens that it becomes."""

    def remedy(self, image: LoadedImage, room: int) -> str:
        """What would reduce it to ``room`` visual tokens, for messages."""


class ImageViewer:
    """An image, seen as in training.

    Args:
        features: where stored features are looked up, or None.
    """

    def __init__(self, model: Mllm, features: Any = None) -> None:
        self.reader = ImageReader(resolutions=model.vision.resolutions, features=features)
        self.assembler = model.vision.assembler
        self._count = token_counter(model)

    def load(self, question: Question) -> LoadedImage | None:
        if question.image is None:
            return None
        image = self.reader.read(question.image, question.origin)
        self.reader.find_features(image)
        return image

    def num_tokens(self, image: LoadedImage) -> int:
        return self._count(image.size)

    def remedy(self, image: LoadedImage, room: int) -> str:
        return "choose fewer visual tokens (projector, reduction, resolution)"


class VideoViewer:
    """The middle frames of a video's segments, each as one view, their tokens joined by the aggregation.

    Where images are tiled, a frame is only the view of the whole (FreeVA with LLaVA-NeXT).
    """

    def __init__(self, model: Mllm, aggregation: Aggregation) -> None:
        self.resolutions = {name: getattr(each, "whole", each) for name, each in model.vision.resolutions.items()}
        self.assembler, self._per_frame = aggregation, model.vision.tokens_per_view
        self._last: tuple[Video, LoadedImage] | None = None

    def load(self, question: Question) -> LoadedImage | None:
        if question.video is None:
            return None
        if self._last is None or self._last[0] != question.video:
            self._last = (question.video, self._read(question.video, question.origin))
        return self._last[1]

    def _read(self, video: Video, origin: str) -> LoadedImage:
        frames = read_frames(video, self.assembler.frames, origin)
        views = {
            name: np.concatenate([resolution.views(frame) for frame in frames])
            for name, resolution in self.resolutions.items()
        }
        for name, cut in views.items():
            if len(cut) != len(frames):
                raise UserError(f"model.encoders.{name}.resolution: makes several views of a frame; a video needs one")
        return LoadedImage(frames[0].size, len(frames), views)

    def num_tokens(self, image: LoadedImage) -> int:
        return self.assembler.num_tokens(image.num_views, self._per_frame)

    def remedy(self, image: LoadedImage, room: int) -> str:
        fitting = [n for n in range(1, image.num_views) if self.assembler.num_tokens(n, self._per_frame) <= room]
        most = f"at most {fitting[-1]} frames fit" if fitting else "not even one frame fits"
        return (
            f"these are {image.num_views} frames of {self._per_frame} tokens each; {most} (video.frames), "
            "or choose video=max_pool or video=mean"
        )


@contextmanager
def shown_by(model: Mllm, viewer: Viewer | None) -> Iterator[None]:
    """Inside, the model joins views as the viewer says."""
    if viewer is None:
        yield
        return
    before, model.vision.assembler = model.vision.assembler, viewer.assembler
    try:
        yield
    finally:
        model.vision.assembler = before
