"""Answers to a list of questions: prompts by the template, questions of an image behind one copy of it."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from mmexp.data.batching import Block, make_batch, make_blocks
from mmexp.data.images import ImageReader, LoadedImage
from mmexp.data.tokenize import ConversationTokenizer
from mmexp.evaluation.benchmark import Question
from mmexp.evaluation.decode import greedy
from mmexp.instantiate import instantiate
from mmexp.model.build import no_visual_tokens, token_counter
from mmexp.model.mllm import Mllm
from mmexp.training.transfer import to_device


def generate_answers(
    model: Mllm,
    template: Mapping[str, Any],
    questions: Sequence[Question],
    *,
    use_images: bool,
    batch_size: int,
    max_new_tokens: int,
    progress: Callable[[int], None],
) -> list[str]:
    """Greedy answers in the order of ``questions``.

    Args:
        template: config node.
        use_images: False asks without the images.
        batch_size: questions decoded together, about: the questions of an image stay together.
        max_new_tokens: longest answer.
        progress: told how many questions more are answered.

    Raises:
        UserError: an image that cannot be read, or a prompt and answer that exceed the LLM's context.
    """
    use_packed_attention(model)
    asker = Asker(model, template, use_images, max_new_tokens)
    answers: list[str] = [""] * len(questions)
    order = sorted(range(len(questions)), key=lambda index: str(questions[index].image))
    groups = [list(group) for _, group in groupby(order, key=lambda index: str(questions[index].image))]
    for batch in batches_of(groups, batch_size):
        indices = [index for group in batch for index in group]
        for index, text in zip(indices, asker.ask([[questions[i] for i in group] for group in batch]), strict=True):
            answers[index] = text
        progress(len(indices))
    return answers


def batches_of(groups: Sequence[list[int]], batch_size: int) -> list[list[list[int]]]:
    """Groups cut to at most ``batch_size`` questions, and put together to about as many."""
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
    """Turns groups of questions (each about one image) into answers."""

    def __init__(self, model: Mllm, template: Mapping[str, Any], use_images: bool, max_new_tokens: int) -> None:
        self.model, self.max_new_tokens = model, max_new_tokens
        self.use_images = use_images and model.vision is not None
        self.tokenizer = ConversationTokenizer(
            tokenizer=model.llm.tokenizer,
            template=instantiate(template, "template"),
            num_visual_tokens=token_counter(model) if self.use_images else no_visual_tokens,
            max_length=model.llm.context_length - max_new_tokens,
        )
        eos: Any = model.llm.tokenizer.eos_token_id
        self.stop_ids = list({*self.tokenizer.stop_ids, eos} - {None})
        self.images = ImageReader(resolutions=model.sight.resolutions, features=None) if self.use_images else None

    def ask(self, groups: Sequence[Sequence[Question]]) -> list[str]:
        """Answers, group by group."""
        blocks: list[Block] = []
        images: list[LoadedImage | None] = []
        for group in groups:
            image = self._image(group[0].image, group[0].origin)
            size = image.size if image else None
            prompts = [self.tokenizer.prompt(q.turn, q.image, size, "", q.origin) for q in group]
            made = make_blocks(prompts, "shared_prefix", self.tokenizer.max_length)
            blocks += made
            images += [image] * len(made)
        batch = make_batch(blocks, images, [[number] for number in range(len(blocks))])
        device = next(self.model.parameters()).device
        ids = greedy(self.model, to_device(batch, device), self.max_new_tokens, self.stop_ids)
        texts = self.model.llm.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _image(self, path: Path | None, origin: str) -> LoadedImage | None:
        return self.images.read(path, origin) if self.images and path else None
