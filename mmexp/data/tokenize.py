"""Conversations to token ids and labels, with one placeholder for each visual token.

The text between images is tokenised as a whole and the tokenizer's offsets say which token belongs to which piece.
Tokenising pieces one by one would give other ids (SentencePiece puts a space before each piece, BPE merges across
their borders), and the lengths of re-tokenised prefixes, the official way, are where LLaVA's "tokenization mismatch"
comes from (papers/llava15.md, sections 6 and 8). What can still go wrong is a token that spans the border of
what is trained; that is an error of the sample.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmexp.data.bad_samples import BadSample
from mmexp.data.template import Piece, Template
from mmexp.errors import UserError
from mmexp.interfaces import IGNORE_INDEX, IMAGE_TOKEN_ID, ImageSize, TokenizedSample, Turn

TEXTS_KEPT = 20_000
"""Tokenised texts that are remembered: short questions recur (all of the lab's, "is there a person?")."""


@dataclass(frozen=True, slots=True)
class _Text:
    """A tokenised conversation without BOS and image."""

    opening: str | None
    """Text before the image; None without one."""
    ids: np.ndarray
    labels: np.ndarray


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
        self._prefixes: dict[tuple[str, int], np.ndarray] = {}
        self._texts: dict[tuple[tuple[Turn, ...], bool, str | None], _Text] = {}
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
        layout = self.template.layout(dataset)
        key = (tuple(turns), num_visual > 0, layout.system)
        text = self._texts.get(key)
        if text is None:
            text = self._text(lambda: layout.render(turns, num_visual > 0), origin)
            if len(self._texts) >= TEXTS_KEPT:
                self._texts.clear()
            self._texts[key] = text
        sample = self._sample(text, num_visual, image, dataset, origin)
        length = len(sample.input_ids)
        if length > self.max_length:
            raise BadSample(
                origin,
                f"{length} tokens ({num_visual} visual, {length - num_visual} text) are more than "
                f"batching.max_length {self.max_length}",
            )
        return sample

    def prompt(self, turn: Turn, image: Path | None, num_visual: int, dataset: str, origin: str) -> TokenizedSample:
        """A question up to where its answer starts, without labels, and with ``num_visual`` visual tokens.

        Its length is not checked: the limit depends on how long the answer may be.

        Raises:
            UserError: with ``origin``, the text cannot be rendered.
        """
        text = self._text(lambda: self.template.prompt(turn, num_visual > 0), origin)
        return self._sample(text, num_visual, image, dataset, origin)

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

    def _text(self, render: Callable[[], list[Piece]], origin: str) -> "_Text":
        try:
            pieces = render()
        except UserError as error:
            raise BadSample(origin, str(error)) from error
        at = next((place for place, piece in enumerate(pieces) if piece.is_image), None)
        ids, trained = self._encode(pieces if at is None else pieces[at + 1 :], origin)
        opening = None if at is None else "".join(piece.text for piece in pieces[:at])
        return _Text(opening, ids, np.where(trained, ids, IGNORE_INDEX))

    def _sample(self, text: "_Text", num_visual: int, image: Path | None, dataset: str, origin: str) -> TokenizedSample:
        prefix = self._bos if text.opening is None else self._prefix(text.opening, num_visual)
        length = len(prefix) + len(text.ids)
        input_ids, labels = np.empty(length, dtype=np.int64), np.empty(length, dtype=np.int64)
        input_ids[: len(prefix)], input_ids[len(prefix) :] = prefix, text.ids
        labels[: len(prefix)], labels[len(prefix) :] = IGNORE_INDEX, text.labels
        labels[:1] = IGNORE_INDEX
        return TokenizedSample(
            input_ids=input_ids,
            labels=labels,
            prefix_length=0 if text.opening is None else len(prefix),
            image=image,
            num_visual_tokens=num_visual,
            dataset=dataset,
            origin=origin,
        )

    def _prefix(self, opening: str, num_visual: int) -> np.ndarray:
        """Ids up to and including the image; for most templates the same in every sample."""
        key = (opening, num_visual)
        if key not in self._prefixes:
            ids = np.array(self._backend.encode(opening, add_special_tokens=False).ids, dtype=np.int64)
            if len(self._prefixes) >= TEXTS_KEPT:
                self._prefixes.clear()
            self._prefixes[key] = np.concatenate([self._bos, ids, np.full(num_visual, IMAGE_TOKEN_ID)])
        return self._prefixes[key]

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
                f"tokenization mismatch: the token for {text[start:end]!r} spans the border of what is trained; "
                "the template does not fit the LLM's tokenizer, or the text begins or ends unusually",
            )
        return ids, flags[first]
