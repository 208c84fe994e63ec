"""From the node ``data`` of a training stage to its windows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mmexp.data.balance import Balance
from mmexp.data.batching import Batching
from mmexp.data.images import Features, ImageReader
from mmexp.data.loader import Shard, WindowMaker
from mmexp.data.mixture import Mixture
from mmexp.data.prepare import SampleReader
from mmexp.data.template import Template
from mmexp.data.tokenize import ConversationTokenizer
from mmexp.data.turns import Turns
from mmexp.errors import UserError, nearest
from mmexp.instantiate import instantiate
from mmexp.interfaces import ImageSize, Resolution, Source


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """What the data side needs to know of the model."""

    tokenizer: Any
    resolutions: Mapping[str, Resolution]
    num_visual_tokens: Callable[[ImageSize], int]
    features: Features | None
    """Stored features of frozen encoders, or None."""


def build_batching(node: Mapping[str, Any]) -> Batching:
    """Raises ``UserError`` for an unknown or missing key."""
    names = Batching.__dataclass_fields__
    for name in node:
        if name not in names:
            raise UserError(f"batching.{name}: no such setting; {nearest(name, names)}")
    missing = [name for name in names if name not in node]
    if missing:
        raise UserError(f"batching.{missing[0]}: is missing")
    return Batching(**node)


def build_mixture(data: Mapping[str, Any], seed: int) -> Mixture:
    """The datasets and the balance of a stage's ``data``; a dataset that the balance never draws from is not opened."""
    balance = instantiate(data["balance"], "data.balance", expect=Balance)
    return Mixture(datasets=open_datasets(data, balance), balance=balance, seed=seed)


def open_datasets(data: Mapping[str, Any], balance: Balance) -> dict[str, Source]:
    """Name -> source, of the datasets that ``balance`` draws from. Raises ``UserError`` where a file is missing."""
    nodes = data["datasets"]
    return {
        name: instantiate(nodes[name], f"data.datasets.{name}", expect=Source, name=name)
        for name in balance.needed(list(nodes))
    }


def build_windows(
    data: Mapping[str, Any], *, seed: int, facts: ModelFacts, shard: Shard, cache_bytes: int
) -> WindowMaker:
    """Everything from disk to windows.

    Args:
        data: ``datasets``, ``template``, ``turns``, ``balance``, ``batching``, ``use_images``.
        seed: of the order of the data.
        cache_bytes: memory of this process for prepared samples.

    Raises:
        UserError: see the parts.
    """
    batching = build_batching(data["batching"])
    tokenizer = ConversationTokenizer(
        tokenizer=facts.tokenizer,
        template=instantiate(data["template"], "data.template", expect=Template),
        num_visual_tokens=facts.num_visual_tokens,
        max_length=batching.max_length,
    )
    images = ImageReader(resolutions=facts.resolutions, features=facts.features) if data["use_images"] else None
    reader = SampleReader(
        mixture=build_mixture(data, seed),
        turns=instantiate(data["turns"], "data.turns", expect=Turns),
        tokenizer=tokenizer,
        images=images,
        batching=batching,
        cache_bytes=cache_bytes,
    )
    return WindowMaker(reader=reader, shard=shard)
