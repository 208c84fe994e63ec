"""Frames that cannot fit the LLM's context are refused before anything is launched."""

import pytest

from mmexp.config import Composer
from mmexp.errors import UserError
from mmexp.planning.validate import validate


def test_more_frames_than_the_context_holds() -> None:
    with Composer("lab").open() as composer:
        config = composer.compose(["benchmark=[video]", "video=concat"]).resolved()
        validate(config)
        room = config["llm"]["config"]["max_position_embeddings"]
        many = composer.compose(["benchmark=[video]", "video=concat", f"video.frames={room}"]).resolved()
    with pytest.raises(
        UserError, match=rf"^video.frames: {room} frames make {64 * room} visual tokens; with 4 for the answer"
    ):
        validate(many)
