"""Wordings by dataset or task: Honeybee's templatized instructions, their variants, and multi-task identifiers.

Texts and their sources are in the YAML files of the group ``template`` (papers/honeybee.md, sections 2.6, 2.7, 5.4).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mmexp.data.choices import choice_lines, shuffled
from mmexp.data.template import Piece, Template
from mmexp.errors import UserError, nearest
from mmexp.interfaces import Turn

if TYPE_CHECKING:
    import numpy as np

FIELD = re.compile(r"\{(\w+)\}")
WORDING_KEYS = ("ask", "reply")


@dataclass(frozen=True, kw_only=True, slots=True)
class WordedTurn(Turn):
    """A turn whose question is final: no response-format prompt is looked for in it or added."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskTemplate(Template):
    """A layout with wordings. A wording is ``{ask, reply}``, texts with fields in braces.

    Fields are ``question``, ``answer``, ``option`` (lines of the choices), ``dataset``, ``task`` and the record's own.
    One wording is drawn for a conversation and used for all its turns. Raises ``UserError`` for an invalid wording,
    and where none of them is for the data.
    """

    tasks: Mapping[str, str]
    """Dataset -> task."""
    wordings: Mapping[str, Sequence[Mapping[str, str]]]
    """Dataset or task -> its wordings; a dataset's own take precedence. Without any, the turns stay as they are."""
    systems: Mapping[str, str | None]
    """Dataset or task -> another system text; null: no text but the answer (captions)."""
    shuffle_options: bool
    """Choices come in another order each time."""
    ask_like: Mapping[str, str]
    """Response format -> dataset whose first wording a benchmark's question gets. A question whose family is a
    dataset of ``tasks`` gets that dataset's; others, and fields that a question lacks, get the format's prompt."""

    def __post_init__(self) -> None:
        # slots make a new class, which the short form of super() does not know
        super(TaskTemplate, self).__post_init__()
        known = {*self.tasks, *self.tasks.values()}
        if self.tasks and self.wordings and not known & set(self.wordings):
            hint = nearest(next(iter(self.wordings)), known)
            raise UserError(f"template.wordings: none is for a dataset or task of the data; {hint}")
        for name, wordings in self.wordings.items():
            for place, wording in enumerate(wordings):
                if sorted(wording) != list(WORDING_KEYS):
                    raise UserError(f"template.wordings.{name}[{place}]: must have the keys ask and reply")

    @property
    def varies(self) -> bool:
        return self.shuffle_options or any(len(wordings) > 1 for wordings in self.wordings.values())

    def word(self, turns: Sequence[Turn], dataset: str, rng: "np.random.Generator") -> Sequence[Turn]:
        """Raises ``UserError`` where a wording names a field that the dataset lacks."""
        if self.shuffle_options:
            turns = [shuffled(turn, rng) for turn in turns]
        name = self._named(self.wordings, dataset)
        if name is None:
            return turns
        place = int(rng.integers(len(self.wordings[name])))
        return [self._worded(turn, dataset, name, place) for turn in turns]

    def layout(self, dataset: str) -> Template:
        name = self._named(self.systems, dataset)
        if name is None:
            return self
        system = self.systems[name]
        if system is not None:
            return replace(self, system=system)
        return replace(
            self, system=None, user="{image}", image_separator="", answer=self.answer.lstrip(" "), closing=""
        )

    def question_text(self, turn: Turn) -> str:
        if isinstance(turn, WordedTurn):
            return self._clean(turn.question)
        return super(TaskTemplate, self).question_text(turn)

    def prompt(self, turn: Turn, has_image: bool) -> list[Piece]:
        dataset = turn.family if turn.family in self.tasks else self.ask_like.get(turn.response_format or "", "")
        name = self._named(self.wordings, dataset)
        if name is not None and set(FIELD.findall(self.wordings[name][0]["ask"])) <= set(self._fields(turn, dataset)):
            turn = replace(self._worded(turn, dataset, name, 0), answer="")
        return super(TaskTemplate, self).prompt(turn, has_image)

    def _named(self, texts: Mapping[str, object], dataset: str) -> str | None:
        return next((name for name in (dataset, self.tasks.get(dataset)) if name in texts), None)

    def _worded(self, turn: Turn, dataset: str, name: str, place: int) -> WordedTurn:
        fields = self._fields(turn, dataset)
        wording = self.wordings[name][place]
        ask, reply = (self._filled(wording[key], fields, f"{name}[{place}].{key}") for key in WORDING_KEYS)
        return WordedTurn(question=ask, answer=reply, family=turn.family)

    def _fields(self, turn: Turn, dataset: str) -> dict[str, str]:
        fields = {"question": turn.question, "answer": turn.answer, "dataset": dataset}
        fields |= {"task": self.tasks[dataset]} if dataset in self.tasks else {}
        fields |= {"option": "\n".join(choice_lines(turn.choices))} if turn.choices else {}
        return fields | dict(turn.fields)

    def _filled(self, text: str, fields: Mapping[str, str], where: str) -> str:
        missing = [name for name in FIELD.findall(text) if name not in fields]
        if missing:
            raise UserError(
                f"template.wordings.{where}: names the field '{missing[0]}', which the dataset lacks; "
                f"it has {', '.join(fields)}"
            )
        return FIELD.sub(lambda match: fields[match[1]], text)
