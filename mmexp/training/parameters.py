"""Which parameters a stage trains, and at which learning rate."""

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from mmexp.errors import UserError
from mmexp.model.mllm import Mllm


def freeze_and_group(model: Mllm, trainable: Mapping[str, float], weight_decay: float) -> list[dict[str, Any]]:
    """Set ``requires_grad`` everywhere and make the optimizer's parameter groups.

    Parameters of an encoder that no gradient reaches (blocks after the deepest tap, unread norms) stay frozen: DDP
    would wait for their gradients, and the optimizer would hold states for nothing.

    Args:
        trainable: regular expression, matched at the start of a parameter's name -> learning rate. The first that
            matches decides; a learning rate of 0 freezes.
        weight_decay: for parameters of two and more dimensions; biases and norms get none, as in transformers' Trainer.

    Raises:
        UserError: a pattern matches no parameter, or none that a gradient reaches.
    """
    named = model.named_trainables()
    unreached = unreached_names(model, trainable)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    used: set[str] = set()
    for name, parameter in named:
        pattern = next((pattern for pattern in trainable if re.match(pattern, name)), None)
        learning_rate = float(trainable[pattern]) if pattern else 0.0
        if learning_rate > 0 and name in unreached:
            learning_rate = 0.0
        elif pattern:
            used.add(pattern)
        parameter.requires_grad_(learning_rate > 0)
        if learning_rate > 0:
            decay = weight_decay if parameter.dim() > 1 else 0.0
            group = groups.setdefault(
                (learning_rate, decay), {"params": [], "lr": learning_rate, "weight_decay": decay}
            )
            group["params"].append(parameter)
    unused = [pattern for pattern in trainable if pattern not in used]
    if unused:
        if any(re.match(unused[0], name) for name in unreached):
            raise UserError(
                f"trainable: '{unused[0]}' matches only what no gradient reaches; no feature layer reads it"
            )
        parts = sorted({".".join(name.split(".")[:1]) for name, _ in named})
        raise UserError(f"trainable: '{unused[0]}' matches no parameter; they begin with {', '.join(parts)}")
    set_modes(model)
    return list(groups.values())


def unreached_names(model: Mllm, trainable: Mapping[str, float]) -> set[str]:
    """Parameters that no gradient reaches, of the encoders that ``trainable`` trains."""
    names: set[str] = set()
    for encoder, part in model.vision.encoders.items() if model.has_vision else ():
        own = {f"encoders.{encoder}.{name}": name for name, _ in part.named_parameters()}
        if any(float(rate) > 0 and any(re.match(pattern, name) for name in own) for pattern, rate in trainable.items()):
            reached = part.reached(model.vision.taps(encoder))
            names |= {full for full, name in own.items() if name not in reached}
    return names


def set_modes(module: nn.Module, inherited: bool = True) -> None:
    """Training mode for modules that train something, evaluation mode (no dropout) for frozen ones.

    Modules without parameters (dropout, activations) follow the module that contains them.
    """
    trained = [parameter.requires_grad for parameter in module.parameters()]
    module.training = any(trained) if trained else inherited
    for child in module.children():
        set_modes(child, module.training)


def trained_names(model: Mllm) -> list[str]:
    return [name for name, parameter in model.named_trainables() if parameter.requires_grad]
