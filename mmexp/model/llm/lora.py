"""Low-rank adapters on an LLM, through ``peft``, in place: the network stays the transformers model that it was.

Only the adapters' weights are trained and saved: ``trainable: {"llm.*lora_": <learning rate>}``.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from mmexp.errors import UserError, nearest

KEYS = ("r", "alpha", "dropout", "targets")
ALL_LINEAR = "all-linear"


def add_lora(network: nn.Module, lora: Mapping[str, Any]) -> None:
    """Put adapters on linear layers; they add nothing until they are trained.

    Args:
        network: a causal LM of transformers.
        lora: ``r`` (rank), ``alpha`` (the update counts alpha / r), ``dropout`` of the adapters' input, ``targets``:
            ``all-linear`` (every linear layer but the output head, as LLaVA's script) or names like ``q_proj``.

    Raises:
        UserError: an unknown, missing or impossible setting, a target that the network lacks.
    """
    import peft  # heavy, and most runs have no adapters

    _check(lora)
    targets = lora["targets"] if lora["targets"] == ALL_LINEAR else _checked_targets(network, lora["targets"])
    config = peft.LoraConfig(
        r=lora["r"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=targets,
        task_type=peft.TaskType.CAUSAL_LM,
    )
    peft.inject_adapter_in_model(config, network)


def merge_lora(network: nn.Module) -> None:
    """Merge the adapters into the weights and remove them, in place: for export."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(network.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            network.set_submodule(name, module.get_base_layer())


def _check(lora: Mapping[str, Any]) -> None:
    for key in lora:
        if key not in KEYS:
            raise UserError(f"llm.lora.{key}: no such setting; {nearest(str(key), KEYS)}")
    for key in KEYS:
        if key not in lora:
            raise UserError(f"llm.lora.{key}: is missing; LoRA needs {', '.join(KEYS)}")
    if not isinstance(lora["r"], int) or lora["r"] < 1:
        raise UserError(f"llm.lora.r: {lora['r']} must be an integer of at least 1")
    if not lora["alpha"] > 0:
        raise UserError(f"llm.lora.alpha: {lora['alpha']} must be above 0")
    if not 0 <= lora["dropout"] < 1:
        raise UserError(f"llm.lora.dropout: {lora['dropout']} must be at least 0 and below 1")


def _checked_targets(network: nn.Module, targets: Any) -> list[str]:
    """peft skips a name that it does not find as long as it finds another one."""
    if isinstance(targets, str) or not targets:
        raise UserError(f"llm.lora.targets: '{targets}'; write {ALL_LINEAR} or a list like [q_proj,v_proj]")
    linear = {name.split(".")[-1] for name, part in network.named_modules() if isinstance(part, nn.Linear)}
    for target in targets:
        if target not in linear:
            raise UserError(f"llm.lora.targets: this LLM has no '{target}'; {nearest(str(target), linear)}")
    return list(targets)
