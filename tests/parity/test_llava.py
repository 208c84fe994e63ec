"""From the same weights, the composition gives the numbers of transformers' LlavaForConditionalGeneration."""

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from mmexp.evaluation.decode import greedy
from mmexp.interfaces import IMAGE_TOKEN_ID
from mmexp.model.mllm import Mllm
from tests.tiny import NUM_VISUAL, TEXT, VISION, random_batch, tiny_spec

IMAGE_ID = 299
THEIRS = {
    "vision.encoders.clip.network.": "model.vision_tower.",
    "vision.projector.0.layers.0.": "model.multi_modal_projector.linear_1.",
    "vision.projector.0.layers.2.": "model.multi_modal_projector.linear_2.",
    "llm.network.model.": "model.language_model.",
    "llm.network.lm_head": "lm_head",
}


def models(attention: str) -> tuple[Mllm, LlavaForConditionalGeneration]:
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=LlamaConfig(**TEXT),
        image_token_id=IMAGE_ID,
        vision_feature_layer=-2,
        attn_implementation=attention,
    )
    theirs = LlavaForConditionalGeneration(config).eval()
    spec = tiny_spec()
    spec["llm"]["attention"] = attention
    ours = Mllm(spec, load=False).eval()
    state = theirs.state_dict()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            prefix = next(prefix for prefix in THEIRS if name.startswith(prefix))
            parameter.copy_(state[name.replace(prefix, THEIRS[prefix])])
    return ours, theirs


def their_inputs(ours: Mllm, batch) -> dict[str, torch.Tensor]:
    pixels = ours.vision.encoders["clip"].normalize(batch.images.views["clip"])
    ids = torch.where(batch.input_ids == IMAGE_TOKEN_ID, IMAGE_ID, batch.input_ids)
    return {"input_ids": ids, "attention_mask": (batch.segment_ids >= 0).long(), "pixel_values": pixels}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_logits_and_loss(attention: str) -> None:
    ours, theirs = models(attention)
    batch = random_batch()
    with torch.no_grad():
        reference = theirs(**their_inputs(ours, batch), labels=batch.labels)
        real = batch.segment_ids >= 0
        assert torch.allclose(ours.logits(batch)[real], reference.logits[real], atol=1e-5)
        assert torch.allclose(ours(batch) / batch.num_valid, reference.loss, atol=1e-5)


def test_gradients() -> None:
    ours, theirs = models("eager")
    batch = random_batch()
    (ours(batch) / batch.num_valid).backward()
    theirs(**their_inputs(ours, batch), labels=batch.labels).loss.backward()
    mine = ours.vision.projector[0].layers[0].weight.grad
    reference = theirs.model.multi_modal_projector.linear_1.weight.grad
    assert mine.abs().max() > 0
    assert torch.allclose(mine, reference, atol=1e-6)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_greedy_generation(attention: str) -> None:
    ours, theirs = models(attention)
    batch = random_batch(rows=4, length=NUM_VISUAL + 14)
    answers = greedy(ours, batch, max_new_tokens=8, stop_ids=[])
    inputs = their_inputs(ours, batch)
    for row in range(4):
        real = inputs["attention_mask"][row].bool()
        reference = theirs.generate(
            input_ids=inputs["input_ids"][row : row + 1, real],
            pixel_values=inputs["pixel_values"][row : row + 1],
            max_new_tokens=8,
            min_new_tokens=8,
            do_sample=False,
            pad_token_id=0,
        )
        assert answers[row] == reference[0, int(real.sum()) :].tolist()
