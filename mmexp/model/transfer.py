"""Batches to a device. Written out because Lightning's generic walk deep-copies dataclasses."""

from dataclasses import fields, replace
from typing import Any

import torch

from mmexp.interfaces import Batch, ImageBatch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The same batch on ``device`` (asynchronously from pinned memory)."""
    if device.type == "cpu":
        return batch
    moved: dict[str, Any] = {
        field.name: value.to(device, non_blocking=True)
        for field in fields(batch)
        if isinstance(value := getattr(batch, field.name), torch.Tensor)
    }
    return replace(batch, **moved, images=batch.images and images_to_device(batch.images, device))


def images_to_device(images: ImageBatch, device: torch.device) -> ImageBatch:
    views = {name: view.to(device, non_blocking=True) for name, view in images.views.items()}
    features = {
        name: {tap: value.to(device, non_blocking=True) for tap, value in taps.items()}
        for name, taps in images.features.items()
    }
    return replace(images, views=views, features=features)
