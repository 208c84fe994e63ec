"""Weights of an encoder: from a file, from the hub, or random on purpose. Missing ones are an error, never skipped."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from mmexp.errors import UserError
from mmexp.hub import from_hub

State = dict[str, torch.Tensor]


def load_encoder_weights(
    network: nn.Module,
    weights: str,
    name: str,
    fetch: Callable[[], State],
    adapt: Callable[[State], State] = lambda state: state,
) -> None:
    """Fill ``network`` in place.

    Args:
        weights: path of a ``.safetensors`` file, ``hub``, or ``random``.
        name: hub id, for the message when the hub cannot be reached.
        fetch: gives the hub's state dict.
        adapt: brings a file's state dict to the size of the input.

    Raises:
        UserError: missing file, keys or shapes that do not fit, unreachable hub.
    """
    if weights == "random":
        return
    state = from_hub(name, "weights", fetch) if weights == "hub" else adapt(_from_file(weights))
    try:
        result = network.load_state_dict(state, strict=False)
    except RuntimeError as error:  # shapes differ: the first line of the message only names the class
        reason = " ".join(str(error).splitlines()[1:2]).strip()
        raise UserError(f"weights: '{weights}' does not fit {name}: {reason}") from error
    wrong = [f"missing {key}" for key in result.missing_keys] + [f"unexpected {key}" for key in result.unexpected_keys]
    if wrong:
        raise UserError(f"weights: '{weights}' does not fit {name}: {', '.join(wrong[:4])} ({len(wrong)} keys)")


def _from_file(weights: str) -> State:
    path = Path(weights)
    if path.suffix != ".safetensors":
        raise UserError(f"weights: '{weights}' is not a .safetensors file (or 'hub' or 'random')")
    if not path.is_file():
        raise UserError(f"weights: no such file '{weights}'")
    return load_file(path)
