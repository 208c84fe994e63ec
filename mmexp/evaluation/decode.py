"""Batched greedy decoding with a KV cache over packed rows.

A row holds the questions of one image after their shared prefix (mmexp.interfaces.Batch). Each step appends one
position for each question of the row; it sees its own question, its answer so far and the prefix, by the rule that
packing uses. The result equals ``generate`` on each question alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers.cache_utils import DynamicCache

from mmexp.interfaces import Batch
from mmexp.model.attention import additive_mask, allowed
from mmexp.model.mllm import Mllm


@dataclass(slots=True)
class _Questions:
    """Where the questions of packed rows end: one column for each question of a row, -1 where a row has fewer."""

    segments: torch.Tensor  # (B, K)
    prefixes: torch.Tensor  # (B, K)
    last: torch.Tensor  # (B, K) index of the question's last position
    positions: torch.Tensor  # (B, K) position id of the next token


@torch.no_grad()
def greedy(model: Mllm, batch: Batch, max_new_tokens: int, stop_ids: Sequence[int]) -> list[list[int]]:
    """Answer ids of every question, row by row, without the stop token.

    Args:
        batch: prompts; every question segment ends where its answer begins. Labels are not read.
        max_new_tokens: longest answer.
        stop_ids: ids that end an answer.
    """
    questions = _questions(batch)
    cache = DynamicCache()
    embeds = model.merge(batch.input_ids, batch.images)
    mask = additive_mask(allowed(batch.segment_ids, batch.prefix_ids, batch.segment_ids), embeds.dtype)
    columns, place = questions.last.clamp(min=0).unique(return_inverse=True)
    logits = model.llm(embeds, mask, batch.position_ids, cache=cache, keep=columns)
    token = logits.gather(1, place[..., None].expand(-1, -1, logits.shape[-1])).argmax(-1)  # (B, K)
    stops = torch.tensor(list(stop_ids), device=token.device)
    running = questions.segments >= 0
    keys, answers = batch.segment_ids, []
    for step in range(max_new_tokens):
        running = running & ~torch.isin(token, stops)
        answers.append(torch.where(running, token, -1))
        if step == max_new_tokens - 1 or not running.any():
            break
        segments = torch.where(running, questions.segments, -1)
        start = keys.shape[1]
        keys = torch.cat([keys, segments], dim=1)
        mask = additive_mask(allowed(segments, questions.prefixes, keys, start), embeds.dtype)
        logits = model.llm(model.llm.embed(token), mask, questions.positions + step, cache=cache)
        token = logits.argmax(-1)
    grid = torch.stack(answers, dim=-1).tolist()  # B, K, steps
    wanted = (questions.segments >= 0).tolist()
    return [
        [token for token in answer if token >= 0]
        for row, keep in zip(grid, wanted, strict=True)
        for answer, is_question in zip(row, keep, strict=True)
        if is_question
    ]


def _questions(batch: Batch) -> _Questions:
    """Question segments are those that no other segment has as its prefix."""
    rows = []
    for segments, prefixes in zip(batch.segment_ids.tolist(), batch.prefix_ids.tolist(), strict=True):
        shared = {prefix for segment, prefix in zip(segments, prefixes, strict=True) if prefix != segment}
        ends = {segment: index for index, segment in enumerate(segments) if segment >= 0 and segment not in shared}
        rows.append([(segment, prefixes[index], index) for segment, index in ends.items()])
    width = max(len(row) for row in rows)
    padded = torch.tensor([row + [(-1, -1, -1)] * (width - len(row)) for row in rows], device=batch.input_ids.device)
    segments, prefixes, last = padded.unbind(-1)
    positions = batch.position_ids.gather(1, last.clamp(min=0)) + 1
    return _Questions(segments, prefixes, last, positions)
