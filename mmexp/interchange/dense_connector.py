"""Dense Connector's released checkpoints (github.com/HJYao00/DenseConnector) in our names.

What a checkpoint trained of the connector is LLaVA's ``mm_projector``; which layers it reads stands in its config.json.
Our feature layers concatenate in the official order, so the columns of the first matrix stay as they are.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmexp.errors import UserError, nearest
from mmexp.interchange.shards import read_tensors

MARK = "mm_projector."
WIDTHS = {"none": 1, "sti": 1, "sci": 3, "dci": 3}
"""Official ``mm_dense_connector_type`` -> width of the connector's output in widths of the encoder."""
OPTIONS = {
    ("none", "clip"): "penultimate",
    ("none", "siglip"): "penultimate",
    ("sti", "clip"): "sti_official",
    ("sti", "siglip"): "sti_official",
    ("sci", "clip"): "sci_official",
    ("sci", "siglip"): "sci_official",
    ("dci", "clip"): "dci_official",
    ("dci", "siglip"): "dci_official_siglip",
}
"""(connector type, encoder) -> option of ``feature_layers``."""


def projector_state_dict(official: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state of one of our MLP projectors from official tensors.

    Args:
        official: keys like ``model.mm_projector.0.weight``; tensors of other parts are left out.

    Raises:
        UserError: no projector among them, or one that is no MLP.
    """
    ours = {}
    for key, value in official.items():
        if MARK not in key:
            continue
        rest = re.fullmatch(r"(\d+)\.(weight|bias)", key.split(MARK)[1])
        if rest is None:
            raise UserError(f"dense connector checkpoint: '{key}' belongs to no MLP projector")
        ours[f"layers.{rest[1]}.{rest[2]}"] = value
    if not ours:
        raise UserError(f"dense connector checkpoint: none of its {len(official)} tensors is an {MARK[:-1]}")
    return ours


def overrides_of(config: Mapping[str, Any]) -> list[str]:
    """What to choose at scale paper for a checkpoint with this config.json.

    Returns:
        Overrides of ``encoder``, ``feature_layers`` and ``projector``.

    Raises:
        UserError: an unknown connector, encoder or projector, or a width that contradicts them. A config without
            ``mm_dense_connector_type`` is refused too: the official code would silently take it for DCI or fail.
    """
    kind = str(config.get("mm_dense_connector_type", "not given"))
    if kind not in WIDTHS:
        raise UserError(f"config.json: mm_dense_connector_type is '{kind}'; {nearest(kind, WIDTHS)}")
    tower = str(config.get("mm_vision_tower", ""))
    encoder = next((name for name in ("siglip", "clip") if name in tower.lower()), None)
    if encoder is None:
        raise UserError(f"config.json: mm_vision_tower is '{tower}'; the connectors were released for CLIP and SigLIP")
    projector = str(config.get("mm_projector_type"))
    if not re.fullmatch(r"mlp\d+x_gelu", projector):
        raise UserError(f"config.json: mm_projector_type is '{projector}'; an mlp2x_gelu was released")
    width = {"clip": 1024, "siglip": 1152}[encoder] * WIDTHS[kind]
    if config.get("mm_hidden_size", width) != width:
        raise UserError(f"config.json: mm_hidden_size is {config['mm_hidden_size']}; {kind} of {encoder} has {width}")
    depth = int(projector[3 : projector.index("x")])
    chosen = [f"encoder=[{encoder}]", f"feature_layers={OPTIONS[kind, encoder]}", "projector=mlp2x_gelu"]
    return chosen if depth == 2 else [*chosen, f"projector.depth={depth}"]


def read_projector(path: Path) -> dict[str, torch.Tensor]:
    """Our projector's state from a checkpoint's folder or file; the LLM's weights are not read.

    Raises:
        UserError: see ``read_tensors`` and ``projector_state_dict``.
    """
    return projector_state_dict(read_tensors(path, lambda key: MARK in key))
