"""An own encoder that was edited is not answered from the feature cache, although its weights are the same."""

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmexp.model.feature_cache import EncoderFeatures, fingerprint
from tests.model.encoder.test_encoders import clip_encoder

SOURCE = """\
from mmexp.model.encoder.transformers_encoder import TransformersEncoder

class OwnEncoder(TransformersEncoder):
    def normalize(self, pixels):
        return super().normalize(pixels) * {factor}
"""


def load(folder: Path, factor: int, name: str = "own_encoder") -> Any:
    """The class as a new process finds it, with weights that are always the same."""
    (folder / f"{name}.py").write_text(SOURCE.format(factor=factor))
    importlib.invalidate_caches()
    sys.modules.pop(name, None)
    torch.manual_seed(0)
    encoder = clip_encoder()
    encoder.__class__ = importlib.import_module(name).OwnEncoder
    return encoder.requires_grad_(False)


def test_an_edited_own_encoder_is_computed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    view = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    try:
        first, cache = load(tmp_path, 1), tmp_path / "cache"
        assert EncoderFeatures(first, [2], cache, 10**9).fill([view], 1) == 1
        assert EncoderFeatures(load(tmp_path, 1), [2], cache, 10**9).lookup(view) is not None
        assert EncoderFeatures(load(tmp_path, 22), [2], cache, 10**9).lookup(view) is None
        assert EncoderFeatures(load(tmp_path, 1, "renamed"), [2], cache, 10**9).lookup(view) is not None
    finally:
        sys.dont_write_bytecode = before


def test_settings_of_any_plain_kind_are_in_the_fingerprint() -> None:
    encoder = clip_encoder()
    before = fingerprint(encoder)
    encoder.windows = [(0, 7), (7, 14)]
    assert fingerprint(encoder) != before
