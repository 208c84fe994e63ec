"""A larger language model of the lab: a finished one with further blocks on top, trained on.

New blocks begin as the identity (their output projections are zero), so that nothing learned is lost
(as in net2net, Chen et al. 2016, arXiv 1511.05641, section 2.2).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmexp.errors import UserError
from mmexp.files import MODEL_FILE
from mmexp.lab.language_stage import LanguageModelStage

OUTPUTS = ("o_proj.weight", "down_proj.weight")


class GrownLanguageModelStage(LanguageModelStage):
    """As ``LanguageModelStage``, from another one's checkpoint.

    Args:
        start: folder of the smaller model; same architecture but for ``num_hidden_layers``.
        others: of ``LanguageModelStage``.

    Raises:
        UserError: the smaller model has weights that do not fit this one.
    """

    VERSION = 2

    def __init__(
        self,
        *,
        start: str,
        world: Mapping[str, int],
        architecture: Mapping[str, Any],
        templates: Mapping[str, Any],
        curriculum: Mapping[str, Any],
        look_back: float,
        rounds: Any,
        check: Mapping[str, int],
        seed: int,
        num_threads: int,
    ) -> None:
        super().__init__(
            world=world,
            architecture=architecture,
            templates=templates,
            curriculum=curriculum,
            look_back=look_back,
            rounds=rounds,
            check=check,
            seed=seed,
            num_threads=num_threads,
        )
        self.start = Path(start)

    def _model(self, tokenizer: Any) -> Any:
        from safetensors.torch import load_file

        model = super()._model(tokenizer)
        state, smaller = model.state_dict(), load_file(self.start / MODEL_FILE)
        wrong = [name for name, tensor in smaller.items() if name not in state or state[name].shape != tensor.shape]
        if wrong:
            raise UserError(f"lab language model: start: '{wrong[0]}' does not fit; only num_hidden_layers may differ")
        model.load_state_dict(smaller, strict=False)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name not in smaller and name.endswith(OUTPUTS):
                    parameter.zero_()
        return model
