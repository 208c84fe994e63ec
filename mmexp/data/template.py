"""How turns become text: role markers, system text, choices, response-format prompts, the image's place."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmexp.data.choices import choice_lines
from mmexp.errors import UserError, nearest
from mmexp.interfaces import Turn

if TYPE_CHECKING:
    import numpy as np

IMAGE_MARKER = "<image>"
FORMAT_PROMPTS = ("after", "before", "none")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text that is trained or masked as a whole; an image piece has the marker as its text."""

    text: str
    is_image: bool = False
    trained: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """The text layout of a conversation: ``opening``, then for each turn ``user``, ``answer``, ``closing``.

    Fields contain their placeholders in braces; the rest of them is copied verbatim. Answers (field ``answer``) are
    trained, everything else is masked. Raises ``UserError`` for a layout without its placeholder.
    """

    bos: bool
    """Begin with the tokenizer's BOS token, where it has one."""
    system: str | None
    """System text; null leaves out the opening."""
    opening: str
    """Layout of the start: ``{system}``."""
    user: str
    """Layout up to where the answer starts: ``{image}``, and ``{question}`` unless questions are dropped."""
    image_separator: str
    """Between the image and the question that follows it."""
    answer: str
    """Layout of what is trained: ``{answer}``; ends with ``stop``."""
    closing: str
    """Masked text after an answer, before the next turn."""
    stop: str
    """Ends an answer when generating."""
    format_prompt: str
    """Response-format prompts: ``after`` the question on a line of their own (LLaVA-1.5), ``before`` it or ``none``."""
    format_texts: Mapping[str, str]
    """Response-format name -> its prompt."""

    def __post_init__(self) -> None:
        needed = [("user", "{image}"), ("answer", "{answer}")]
        needed += [("opening", "{system}")] if self.system is not None else []
        for field, placeholder in needed:
            if getattr(self, field).count(placeholder) != 1:
                raise UserError(f"template.{field}: '{getattr(self, field)}' must contain {placeholder} once")
        if not self.stop or not self.answer.endswith(self.stop):
            raise UserError(f"template.answer: '{self.answer}' must end with template.stop '{self.stop}'")
        if self.format_prompt not in FORMAT_PROMPTS:
            hint = nearest(str(self.format_prompt), FORMAT_PROMPTS)
            raise UserError(f"template.format_prompt: unknown '{self.format_prompt}'; {hint}")

    @property
    def varies(self) -> bool:
        """Whether ``word`` draws anything, so that a sample reads differently each time."""
        return False

    def word(self, turns: Sequence[Turn], dataset: str, rng: "np.random.Generator") -> Sequence[Turn]:
        """The turns of a conversation in the words of their dataset; here as they are."""
        return turns

    def layout(self, dataset: str) -> "Template":
        """The layout for conversations of a dataset."""
        return self

    def render(self, turns: Sequence[Turn], has_image: bool) -> list[Piece]:
        """Pieces of a whole conversation; the image, if any, is in the first turn.

        Raises:
            UserError: an unknown response format, or a text that contains the image or the end marker.
        """
        pieces = self._opening()
        for place, turn in enumerate(turns):
            pieces += self._user(turn, has_image and place == 0)
            pieces.append(Piece(self.answer.replace("{answer}", self._clean(turn.answer)), trained=True))
            pieces.append(Piece(self.closing))
        return [piece for piece in pieces if piece.text]

    def prompt(self, turn: Turn, has_image: bool) -> list[Piece]:
        """Pieces of a question up to where its answer starts: what generation begins from."""
        return [piece for piece in self._opening() + self._user(turn, has_image) if piece.text]

    def question_text(self, turn: Turn) -> str:
        """The question with its choices (papers/llava15.md, section 3: lines ``A. ...``) and response-format prompt.

        A prompt that the data carry already (its text as the question's last line, as in LLaVA's 665K file) counts as
        the turn's response format, so that it too can be moved or left out.
        """
        question, name = self._split_format(turn)
        question = "\n".join([question, *choice_lines(turn.choices)])
        if name is None or self.format_prompt == "none":
            return question
        if name not in self.format_texts:
            hint = nearest(name, self.format_texts)
            raise UserError(f"response format '{name}' is not in template.format_texts; {hint}")
        text = self.format_texts[name]
        return f"{question}\n{text}" if self.format_prompt == "after" else f"{text} {question}"

    def _split_format(self, turn: Turn) -> tuple[str, str | None]:
        """The longest known prompt wins: one (``unanswerable``) ends with another (``word``)."""
        question = self._clean(turn.question)
        carried = [name for name, text in self.format_texts.items() if question.endswith(f"\n{text}")]
        if not carried:
            return question, turn.response_format
        name = max(carried, key=lambda option: len(self.format_texts[option]))
        return question.removesuffix(f"\n{self.format_texts[name]}"), name

    def _opening(self) -> list[Piece]:
        return [] if self.system is None else [Piece(self.opening.replace("{system}", self.system))]

    def _user(self, turn: Turn, has_image: bool) -> list[Piece]:
        before, after = self.user.split("{image}")
        question = self.question_text(turn) if "{question}" in self.user else ""
        image = [Piece(IMAGE_MARKER, is_image=True), Piece(self.image_separator)] if has_image else []
        return [Piece(before.replace("{question}", question)), *image, Piece(after.replace("{question}", question))]

    def _clean(self, text: str) -> str:
        markers: Iterable[str] = (IMAGE_MARKER, self.stop.strip())
        for marker in markers:
            if marker and marker in text:
                raise UserError(f"the text contains '{marker}', which the template uses as a marker: '{text[:60]}'")
        return text
