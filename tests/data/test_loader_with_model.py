"""From files through the loader into a real tiny model: every packing gives the same loss and gradients."""

import pytest
import torch

from mmexp.interfaces import Batch
from mmexp.model.mllm import Mllm
from tests.data.making import NUM_VISUAL, llava_record, write_dataset
from tests.data.test_loader import data_node, loader, template_node, windows
from tests.tiny import TEXT, tiny_spec


def model() -> Mllm:
    """Its one encoder makes ``NUM_VISUAL`` tokens of an 8 x 8 image."""
    spec = tiny_spec()
    spec["llm"]["config"] = {"model_type": "llama", **TEXT, "vocab_size": 500}
    vision = spec["encoders"]["clip"]
    vision["config"], vision["image_size"] = {**vision["config"], "image_size": 8, "patch_size": 4}, 8
    torch.manual_seed(0)
    made = Mllm(spec, load=False)
    assert made.vision.num_tokens((8, 8)) == NUM_VISUAL
    return made


def loss_and_gradients(windows_of: list[list[Batch]]) -> tuple[torch.Tensor, int, list[torch.Tensor]]:
    trained = model()
    loss = sum((trained(batch) for window in windows_of for batch in window), torch.zeros(()))
    loss.backward()
    valid = sum(batch.num_valid for window in windows_of for batch in window)
    gradients = [parameter.grad for _, parameter in trained.named_trainables() if parameter.grad is not None]
    return loss.detach(), valid, gradients


@pytest.mark.parametrize("template", ["vicuna_v1", "plain"])
@pytest.mark.parametrize(
    "change",
    [
        {"packing": "sequence"},
        {"packing": "sequence", "row_length": 512},
        {"packing": "shared_prefix"},
        {"packing": "shared_prefix", "row_length": 512},
    ],
    ids=["sequence", "long rows", "shared prefix", "images share rows"],
)
def test_packing_changes_neither_loss_nor_gradients(tmp_path, change, template):
    records = [llava_record(number, questions=1 + number % 4, image=number % 4 != 0) for number in range(8)]
    node = {**data_node(write_dataset(tmp_path, records), batch_size=8), "template": template_node(template)}
    plain = {**node, "batching": {**node["batching"], "packing": "none"}}
    packed = {**node, "batching": {**node["batching"], **change}}
    loss, valid, gradients = loss_and_gradients(list(loader(windows(plain, micro=8), steps=1)))
    windows_of = list(loader(windows(packed, micro=3), steps=1))
    other_loss, other_valid, other_gradients = loss_and_gradients(windows_of)
    assert valid == other_valid > 0
    torch.testing.assert_close(loss, other_loss, rtol=1e-5, atol=1e-5)
    for one, other in zip(gradients, other_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
