"""Conversations to token ids and labels, with one placeholder for each visual token.

The text between images is tokenised as a whole and the tokenizer's offsets say which token belongs to which piece.
Tokenising pieces one by one would give other ids (SentencePiece puts a space before each piece, BPE merges across
their borders), and the lengths of re-tokenised prefixes, the official way, are where LLaVA's "tokenization mismatch"
comes from (papers/llava15.md, sections 6 and 8). What remains to go wrong is a token that lies across the border of
what is trained; that is an error of the sample.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmexp.data.bad_sample import BadSample
from mmexp.data.template import Piece, Template
from mmexp.errors import UserError
from mmexp.interfaces import IGNORE_INDEX, IMAGE_TOKEN_ID, ImageSize, TokenizedSample, Turn

OPENINGS_KEPT = 64


class ConversationTokenizer:
    """Tokenises conversations of one template with one tokenizer.

    Args:
        tokenizer: a fast tokenizer of transformers (slow ones have no offsets).
        template: the text layout.
        num_visual_tokens: size of an image -> its visual tokens.
        max_length: positions that a conversation may have, visual tokens included.

    Raises:
        UserError: a slow tokenizer, or one for which the template's stop text is not one token.
    """

    def __init__(
        self,
        *,
        tokenizer: Any,
        template: Template,
        num_visual_tokens: Callable[[ImageSize], int],
        max_length: int,
    ) -> None:
        if not tokenizer.is_fast:
            raise UserError(f"llm.checkpoint: {type(tokenizer).__name__} has no offsets; a tokenizer.json is needed")
        self.template, self.num_visual_tokens, self.max_length = template, num_visual_tokens, max_length
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        bos = tokenizer.bos_token_id if template.bos else None
        self._bos = np.array([] if bos is None else [bos], dtype=np.int64)
        self._openings: dict[str, np.ndarray] = {}
        self.stop_ids = self._stop_ids()
        """Ids of the tokens that end an answer."""

    def conversation(
        self, turns: Sequence[Turn], image: Path | None, size: ImageSize | None, dataset: str, origin: str
    ) -> TokenizedSample:
        """One conversation to train on; ``size`` is the image's, None without one.

        The first position carries no label: nothing predicts it.

        Raises:
            BadSample: the text cannot be rendered, its tokens straddle a mask border, or it is too long.
            UserError: ``max_length`` is too short for the visual tokens alone.
        """
        num_visual = self._num_visual(size, origin)
        try:
            pieces = self.template.render(turns, num_visual > 0)
        except UserError as error:
            raise BadSample(origin, str(error)) from error
        sample = self._tokenize(pieces, num_visual, image, dataset, origin)
        length = len(sample.input_ids)
        if length > self.max_length:
            raise BadSample(
                origin,
                f"{length} tokens ({num_visual} visual, {length - num_visual} text) are more than "
                f"batching.max_length {self.max_length}",
            )
        return sample

    def prompt(
        self, turn: Turn, image: Path | None, size: ImageSize | None, dataset: str, origin: str
    ) -> TokenizedSample:
        """A question up to where its answer starts, without labels.

        Raises:
            UserError: with ``origin``, the text cannot be rendered.
        """
        num_visual = self._num_visual(size, origin)
        try:
            pieces = self.template.prompt(turn, num_visual > 0)
        except UserError as error:
            raise BadSample(origin, str(error)) from error
        return self._tokenize(pieces, num_visual, image, dataset, origin)

    def _stop_ids(self) -> list[int]:
        encoding = self._backend.encode(f"a{self.template.stop}", add_special_tokens=False)
        if len(encoding.ids) < 2 or encoding.offsets[-1][0] != 1:
            raise UserError(
                f"template.stop: {self.template.stop!r} is not one token of the LLM's tokenizer; "
                "choose the template that the LLM was trained with"
            )
        return [encoding.ids[-1]]

    def _num_visual(self, size: ImageSize | None, origin: str) -> int:
        num_visual = self.num_visual_tokens(size) if size is not None else 0
        if num_visual >= self.max_length:
            raise UserError(
                f"batching.max_length: {self.max_length} positions cannot hold the {num_visual} visual tokens of an "
                f"image ({origin}) and a question; raise it, or choose fewer tokens (projector, resolution)"
            )
        return num_visual

    def _tokenize(
        self, pieces: Sequence[Piece], num_visual: int, image: Path | None, dataset: str, origin: str
    ) -> TokenizedSample:
        at = next((place for place, piece in enumerate(pieces) if piece.is_image), None)
        ids, labels = [self._bos], [np.full(len(self._bos), IGNORE_INDEX)]
        prefix_length = 0
        if at is not None:
            opening = self._opening("".join(piece.text for piece in pieces[:at]))
            ids += [opening, np.full(num_visual, IMAGE_TOKEN_ID)]
            prefix_length = sum(len(part) for part in ids)
            labels = [np.full(prefix_length, IGNORE_INDEX)]
        text_ids, trained = self._encode(pieces if at is None else pieces[at + 1 :], origin)
        label = np.concatenate([*labels, np.where(trained, text_ids, IGNORE_INDEX)])
        label[:1] = IGNORE_INDEX
        return TokenizedSample(
            input_ids=np.concatenate([*ids, text_ids]),
            labels=label,
            prefix_length=prefix_length,
            image=image,
            num_visual_tokens=num_visual,
            dataset=dataset,
            origin=origin,
        )

    def _opening(self, text: str) -> np.ndarray:
        """Ids of what stands before the image: for most templates the same text in every sample."""
        if text not in self._openings:
            if len(self._openings) >= OPENINGS_KEPT:
                self._openings.clear()
            ids = self._backend.encode(text, add_special_tokens=False).ids
            self._openings[text] = np.array(ids, dtype=np.int64)
        return self._openings[text]

    def _encode(self, pieces: Sequence[Piece], origin: str) -> tuple[np.ndarray, np.ndarray]:
        """Ids (T,) of the pieces' joined text, and which of them are trained (T,) bool."""
        text = "".join(piece.text for piece in pieces)
        encoding = self._backend.encode(text, add_special_tokens=False)
        ids = np.array(encoding.ids, dtype=np.int64)
        if not len(ids):
            return ids, np.zeros(0, dtype=bool)
        spans = np.array(encoding.offsets, dtype=np.int64)
        # A token begins where the one before it ended: some tokenizers leave spaces out of their offsets.
        ends = np.maximum.accumulate(spans[:, 1])
        starts = np.minimum(spans[:, 0], np.concatenate([[0], ends[:-1]]))
        owner = np.repeat(np.arange(len(pieces)), [len(piece.text) for piece in pieces])
        flags = np.array([piece.trained for piece in pieces])
        stretch = np.concatenate([[0], np.cumsum(flags[1:] != flags[:-1])])
        first = owner[np.minimum(starts, len(text) - 1)]
        last = owner[np.clip(ends - 1, starts, len(text) - 1)]
        across = np.flatnonzero(stretch[first] != stretch[last])
        if len(across):
            start, end = int(starts[across[0]]), int(ends[across[0]])
            raise BadSample(
                origin,
                f"tokenization mismatch: the token for {text[start:end]!r} lies across the border of what is trained; "
                "the template does not fit the LLM's tokenizer, or the text begins or ends unusually",
            )
        return ids, flags[first]
