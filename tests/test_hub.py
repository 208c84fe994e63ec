"""Without the hub, scale paper fails at once and says what to download."""

import socket
from pathlib import Path

import pytest

from mmexp import hub
from mmexp.errors import UserError


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    tried: list[int] = []

    def refuse(*_args: object, **_kwargs: object) -> None:
        tried.append(1)
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    hub.reachable.cache_clear()
    yield tried
    hub.reachable.cache_clear()


def test_llm_and_encoders_name_what_to_download(no_network: list[int]) -> None:
    from mmexp.model.encoder.timm_encoder import TimmEncoder
    from mmexp.model.llm.causal_lm import CausalLM

    arguments = {"config": None, "attention": "sdpa", "dtype": "float32", "gradient_checkpointing": False}
    with pytest.raises(UserError, match=r"llm\.checkpoint: 'lmsys/vicuna-7b-v1\.5'.*hf download lmsys/vicuna-7b-v1\.5"):
        CausalLM(checkpoint="lmsys/vicuna-7b-v1.5", **arguments)
    settings = {"model_args": {}, "image_size": 224, "mean": [0.5] * 3, "std": [0.5] * 3, "final_norm": False}
    with pytest.raises(UserError, match=r"weights: 'timm/vit_tiny_patch16_224\.augreg_in21k'.*hf download"):
        TimmEncoder(model_name="vit_tiny_patch16_224.augreg_in21k", weights="hub", **settings)
    assert no_network == [1]  # asked once, then the client stays offline


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a checkpoint"):
        hub.from_hub(str(tmp_path), "llm.checkpoint", lambda: (tmp_path / "config.json").read_text())


def test_a_log_gets_no_bars_of_loaded_weights(tmp_path: Path) -> None:
    from transformers.utils import logging

    logging.enable_progress_bar()
    hub.from_hub(str(tmp_path), "llm.checkpoint", lambda: None)
    assert not logging.is_progress_bar_enabled()  # stderr of a test is not a terminal
