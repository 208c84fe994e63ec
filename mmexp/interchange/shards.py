"""Some tensors of a checkpoint on disk, without holding the others in memory."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open

from mmexp.errors import UserError

PATTERNS = ("*.safetensors", "pytorch_model*.bin", "mm_projector.bin")


def read_tensors(path: Path, wanted: Callable[[str], bool]) -> dict[str, torch.Tensor]:
    """The tensors whose key is wanted, of one ``.safetensors`` or ``.bin`` file or of all in a folder.

    Raises:
        UserError: nothing there, a file that is no state dict, or no such key.
    """
    files = sorted(file for pattern in PATTERNS for file in path.glob(pattern)) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise UserError(f"{path}: no .safetensors or .bin file there")
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        tensors |= _read(file, wanted)
    if not tensors:
        raise UserError(f"{path}: none of its tensors is what is looked for")
    return tensors


def _read(file: Path, wanted: Callable[[str], bool]) -> dict[str, torch.Tensor]:
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as opened:
                return {key: opened.get_tensor(key) for key in opened.keys() if wanted(key)}
        state = torch.load(file, "cpu", weights_only=True, mmap=True)
        return {key: value.clone() for key, value in state.items() if wanted(key)}
    except Exception as error:  # both libraries raise many kinds; all mean that the file is not what it should be
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{file}: cannot be read as weights ({first_line[:200]})") from error
