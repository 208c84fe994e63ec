"""Packed rows give the loss and the gradients of separate sequences; the mask is the rule of ``Batch``."""

from dataclasses import replace

import pytest
import torch

from mmexp.evaluation.decode import greedy
from mmexp.interfaces import IGNORE_INDEX, IMAGE_TOKEN_ID, Batch
from mmexp.model.attention import allowed
from mmexp.model.mllm import Mllm
from tests.tiny import NUM_VISUAL, image_batch, tiny_spec

PREFIX = 3 + NUM_VISUAL
QUESTION = 9


def model() -> Mllm:
    torch.manual_seed(0)
    return Mllm(tiny_spec(), load=False)


def prompts(images: int, questions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Prefix ids (images, PREFIX) and question ids (images, questions, QUESTION)."""
    generator = torch.Generator().manual_seed(1)
    prefix = torch.randint(5, 290, (images, PREFIX), generator=generator)
    prefix[:, 3:] = IMAGE_TOKEN_ID
    return prefix, torch.randint(5, 290, (images, questions, QUESTION), generator=generator)


def separate(prefix: torch.Tensor, questions: torch.Tensor) -> Batch:
    """One row for each question, the image given again each time."""
    images, count, length = questions.shape
    ids = torch.cat([prefix.repeat_interleave(count, 0), questions.flatten(0, 1)], dim=1)
    labels = torch.full_like(ids, IGNORE_INDEX)
    labels[:, PREFIX + 5 :] = ids[:, PREFIX + 5 :]
    zeros = torch.zeros_like(ids)
    views = image_batch(images, {"clip": 32})
    repeated = replace(
        views,
        views={"clip": views.views["clip"].repeat_interleave(count, 0)},
        view_counts=[1] * (images * count),
        sizes=[(32, 32)] * (images * count),
    )
    positions = torch.arange(PREFIX + length).expand_as(ids).clone()
    return Batch(
        input_ids=ids,
        labels=labels,
        position_ids=positions,
        segment_ids=zeros,
        prefix_ids=zeros.clone(),
        images=repeated,
        num_conversations=len(ids),
    )


def shared_prefix(prefix: torch.Tensor, questions: torch.Tensor) -> Batch:
    """One row for each image: its tokens once, every question behind them."""
    images, count, length = questions.shape
    ids = torch.cat([prefix, questions.flatten(1)], dim=1)
    labels = torch.full_like(ids, IGNORE_INDEX)
    labels[:, PREFIX:].unflatten(1, (count, length))[:, :, 5:] = questions[:, :, 5:]
    segments = torch.cat([torch.zeros(PREFIX), 1 + torch.arange(count).repeat_interleave(length)]).long()
    positions = torch.cat([torch.arange(PREFIX), PREFIX + torch.arange(length).repeat(count)])
    return Batch(
        input_ids=ids,
        labels=labels,
        position_ids=positions.expand_as(ids).clone(),
        segment_ids=segments.expand_as(ids).clone(),
        prefix_ids=torch.zeros_like(ids),
        images=image_batch(images, {"clip": 32}),
        num_conversations=images * count,
    )


def gradients(network: Mllm, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    network.zero_grad()
    loss = network(batch)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_shared_prefix_equals_separate_sequences(attention: str) -> None:
    spec = tiny_spec()
    spec["llm"]["attention"] = attention
    torch.manual_seed(0)
    network = Mllm(spec, load=False)
    prefix, questions = prompts(images=2, questions=3)
    apart, apart_gradients = gradients(network, separate(prefix, questions))
    packed, packed_gradients = gradients(network, shared_prefix(prefix, questions))
    assert torch.allclose(apart, packed, rtol=1e-5)
    assert apart_gradients.keys() == packed_gradients.keys()
    for name, gradient in apart_gradients.items():
        assert torch.allclose(gradient, packed_gradients[name], rtol=1e-3, atol=1e-4), name


def test_block_diagonal_equals_separate_sequences() -> None:
    network = model()
    prefix, questions = prompts(images=2, questions=1)
    apart = separate(prefix, questions)
    length = apart.input_ids.shape[1]
    packed = replace(
        apart,
        input_ids=apart.input_ids.reshape(1, -1),
        labels=apart.labels.reshape(1, -1),
        position_ids=apart.position_ids.reshape(1, -1),
        segment_ids=torch.arange(2).repeat_interleave(length)[None],
        prefix_ids=torch.arange(2).repeat_interleave(length)[None],
    )
    first, first_gradients = gradients(network, apart)
    second, second_gradients = gradients(network, packed)
    assert torch.allclose(first, second, rtol=1e-5)
    for name, gradient in first_gradients.items():
        assert torch.allclose(gradient, second_gradients[name], rtol=1e-3, atol=1e-4), name


def test_packed_decoding_equals_decoding_each_question() -> None:
    network = model().eval()
    prefix, questions = prompts(images=3, questions=4)
    apart = greedy(network, separate(prefix, questions), max_new_tokens=6, stop_ids=[7])
    packed = greedy(network, shared_prefix(prefix, questions), max_new_tokens=6, stop_ids=[7])
    assert len(packed) == 12
    assert apart == packed


def test_stop_tokens_end_an_answer() -> None:
    network = model().eval()
    prefix, questions = prompts(images=2, questions=2)
    batch = shared_prefix(prefix, questions)
    free = greedy(network, batch, max_new_tokens=6, stop_ids=[])
    stop = free[0][2]
    stopped = greedy(network, batch, max_new_tokens=6, stop_ids=[stop])
    for long, short in zip(free, stopped, strict=True):
        assert short == (long[: long.index(stop)] if stop in long else long)


def test_the_mask_is_the_rule() -> None:
    segments = torch.tensor([[0, 0, 1, 1, 2, -1]])
    prefixes = torch.tensor([[0, 0, 0, 0, 2, -1]])
    mask = allowed(segments, prefixes, segments)[0]
    for query in range(6):
        for key in range(6):
            same = segments[0, key] in (segments[0, query], prefixes[0, query]) and segments[0, key] >= 0
            assert mask[query, key] == ((key <= query and same) or key == query)


def test_text_only_batches_touch_trained_vision_with_zero() -> None:
    network = model()
    prefix, questions = prompts(images=1, questions=2)
    batch = separate(prefix, questions)
    text = replace(batch, input_ids=batch.input_ids.clamp(min=5), images=None)
    _, found = gradients(network, text)
    projector = found["vision.projector.0.layers.0.weight"]
    assert torch.equal(projector, torch.zeros_like(projector))
