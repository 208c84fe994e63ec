"""Weights of others as what a finished stage holds, for a stage's ``init_from``."""

import json
from pathlib import Path

from safetensors.torch import save_file

from mmexp.errors import UserError
from mmexp.files import LINEAGE_FILE, WEIGHTS_FILE
from mmexp.interfaces import Importer


def import_weights(importer: Importer, checkpoint: Path, out: Path) -> dict[str, int]:
    """Write a checkpoint's tensors, under our names, into the new folder ``out``.

    Returns:
        Part of the model -> number of its parameters.

    Raises:
        UserError: ``out`` is there already, or the importer finds nothing or raises one.
    """
    if out.exists():
        raise UserError(f"{out}: is there already; choose a new folder")
    state = importer.tensors(checkpoint)
    if not state:
        raise UserError(f"{checkpoint}: the importer finds no tensor in it")
    temporary = out.with_name(f"{out.name}.partial")
    temporary.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in state.items()}, temporary / WEIGHTS_FILE)
    (temporary / LINEAGE_FILE).write_text(json.dumps({"init_from": None}))
    temporary.rename(out)
    sizes: dict[str, int] = {}
    for name, value in state.items():
        part = name.partition(".")[0]
        sizes[part] = sizes.get(part, 0) + value.numel()
    return sizes
