"""Answers to a list of questions: prompts by the template, questions about an image share one copy of it."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from mmexp.data.batching import Block, make_batch, make_blocks
from mmexp.data.images import LoadedImage
from mmexp.data.template import Template
from mmexp.data.tokenize import ConversationTokenizer
from mmexp.errors import UserError
from mmexp.evaluation.benchmark import Question
from mmexp.evaluation.decode import greedy
from mmexp.evaluation.viewing import ImageViewer, VideoViewer, Viewer, shown_by
from mmexp.instantiate import instantiate
from mmexp.interfaces import TokenizedSample
from mmexp.model.build import no_visual_tokens
from mmexp.model.mllm import Mllm
from mmexp.model.transfer import to_device
from mmexp.model.video.aggregation import Aggregation


def generate_answers(
    model: Mllm,
    template: Mapping[str, Any],
    questions: Sequence[Question],
    *,
    use_images: bool,
    batch_size: int,
    max_new_tokens: int,
    progress: Callable[[int], None],
    aggregation: Aggregation | None = None,
    features: Any = None,
) -> list[str]:
    """Greedy answers in the order of ``questions``.

    Args:
        template: config node.
        use_images: False asks without the images.
        batch_size: questions decoded together, about: the questions of an image stay together. Of questions about
            videos, fewer by the number of frames of a video.
        max_new_tokens: longest answer.
        progress: called with the number of questions just answered.
        aggregation: joins the frames of videos; None where the questions are about images.
        features: stored features of images, or None.

    Raises:
        UserError: an image or video that cannot be read, or a prompt and answer that exceed the LLM's context.
    """
    use_packed_attention(model)
    viewer: Viewer | None = None
    if use_images and model.has_vision:
        viewer = ImageViewer(model, features) if aggregation is None else VideoViewer(model, aggregation)
    asker = Asker(model, template, viewer, max_new_tokens)
    answers: list[str] = [""] * len(questions)
    order = sorted(range(len(questions)), key=lambda index: questions[index].shown)
    groups = [list(group) for _, group in groupby(order, key=lambda index: questions[index].shown)]
    views = 1 if aggregation is None else aggregation.frames
    with shown_by(model, viewer):
        for batch in batches_of(groups, max(1, batch_size // views)):
            indices = [index for group in batch for index in group]
            texts = asker.ask([[questions[index] for index in group] for group in batch])
            for index, text in zip(indices, texts, strict=True):
                answers[index] = text
            progress(len(indices))
    return answers


def batches_of(groups: Sequence[list[int]], batch_size: int) -> list[list[list[int]]]:
    """Groups split to at most ``batch_size`` questions, and merged up to about as many."""
    parts = [group[start : start + batch_size] for group in groups for start in range(0, len(group), batch_size)]
    batches: list[list[list[int]]] = []
    room = 0
    for part in parts:
        if len(part) > room:
            batches.append([])
            room = batch_size
        batches[-1].append(part)
        room -= len(part)
    return batches


def use_packed_attention(model: Mllm) -> None:
    """Packed decoding needs an explicit mask, which flash attention does not take."""
    if model.llm.attention not in ("sdpa", "eager"):
        model.llm.network.set_attn_implementation("sdpa")
        model.llm.attention = "sdpa"


class Asker:
    """Turns groups of questions (each about one image or video) into answers.

    Args:
        viewer: loads what the questions are about; None asks without it.
    """

    def __init__(self, model: Mllm, template: Mapping[str, Any], viewer: Viewer | None, max_new_tokens: int) -> None:
        self.model, self.viewer, self.max_new_tokens = model, viewer, max_new_tokens
        self.tokenizer = ConversationTokenizer(
            tokenizer=model.llm.tokenizer,
            template=instantiate(template, "template", expect=Template),
            num_visual_tokens=no_visual_tokens,
            max_length=model.llm.context_length - max_new_tokens,
        )
        eos: Any = model.llm.tokenizer.eos_token_id
        self.stop_ids = list({*self.tokenizer.stop_ids, eos} - {None})

    def ask(self, groups: Sequence[Sequence[Question]]) -> list[str]:
        """Answers, group by group."""
        blocks: list[Block] = []
        images: list[LoadedImage | None] = []
        for group in groups:
            image = self.viewer.load(group[0]) if self.viewer else None
            prompts = [self._prompt(question, image) for question in group]
            made = make_blocks(prompts, "shared_prefix", self.tokenizer.max_length)
            blocks += made
            images += [image] * len(made)
        batch = make_batch(blocks, images, [[number] for number in range(len(blocks))])
        device = next(self.model.parameters()).device
        ids = greedy(self.model, to_device(batch, device), self.max_new_tokens, self.stop_ids)
        texts = self.model.llm.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _prompt(self, question: Question, image: LoadedImage | None) -> TokenizedSample:
        """Raises ``UserError`` where the context would have no room for the answer: a question is never truncated."""
        num_visual = self.viewer.num_tokens(image) if self.viewer and image else 0
        prompt = self.tokenizer.prompt(question.turn, question.image, num_visual, "", question.origin)
        length, most = len(prompt.input_ids), self.tokenizer.max_length
        if length > most:
            text = length - num_visual
            remedy = f"; {self.viewer.remedy(image, most - text)}" if self.viewer and image else ""
            raise UserError(
                f"{question.origin}: {num_visual} visual tokens, {text} of the question and {self.max_new_tokens} for "
                f"the answer are more than the {most + self.max_new_tokens} positions of the LLM's context{remedy}"
            )
        return prompt
