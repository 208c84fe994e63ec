"""Features of frozen encoders, computed once per image and view and shared by all runs on this disk.

One entry per (pixels of the view, fingerprint of the encoder's code, weights and settings, dtype, tap). A tap is a
depth or the mean of a group of depths, which is stored instead of its members. A folder holds segments:
``<name>.keys.npy`` (n, 16) uint8 and one memory-mapped ``<name>.<tap>.npy`` (n, N, D) for each tap. A segment appears
by an atomic rename and is never changed, so readers need no lock; writers take one file lock.
"""

import hashlib
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import nn

from mmexp.config.part_identity import part_identity
from mmexp.files import replacing
from mmexp.model.encoder.block_encoder import Tap, tap_name
from mmexp.model.fusion.base import BaseFusion
from mmexp.model.mllm import Mllm

KEY_BYTES = 16
"""Bytes of a view's key: two different views do not share 128 bits."""
BATCH = 64
"""Views in one pass of an encoder."""
SEGMENT = 1024
"""Views in one segment; what a kill can lose."""


def view_key(view: np.ndarray) -> bytes:
    """Identity of a view's pixels."""
    return hashlib.blake2b(np.ascontiguousarray(view).tobytes(), digest_size=KEY_BYTES).digest()


def fingerprint(encoder: nn.Module) -> str:
    """Hash of the code, the weights and every setting that changes what comes out.

    The code of a class of ours is its name and ``VERSION``, of a user's own its source, see ``part_identity``.
    """
    kind = type(encoder)
    code = part_identity(f"{kind.__module__}.{kind.__qualname__}")
    digest = hashlib.sha256((code.hashed if code else "").encode())
    digest.update(repr(encoder).encode())
    settings = {key: value for key, value in vars(encoder).items() if not key.startswith("_") and _is_plain(value)}
    digest.update(repr(sorted(settings.items())).encode())
    tensors = [*encoder.state_dict().items(), ("mean", encoder.mean), ("std", encoder.std)]
    for name, value in sorted(tensors, key=lambda item: item[0]):
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:20]


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, int | float | str | bool)


class EncoderFeatures:
    """The cache of one frozen encoder.

    Args:
        encoder: in evaluation mode, weights loaded.
        taps: depths, and groups of depths, that are looked up.
        root: folder of all caches.
        limit_bytes: the caches of all encoders together; what does not fit is computed anew each time.
        further: more depths and groups, which other runs will need; all are stored in one pass.
    """

    def __init__(
        self, encoder: Any, taps: Sequence[Tap], root: Path, limit_bytes: int, further: Sequence[Tap] = ()
    ) -> None:
        self.encoder, self.limit_bytes, self.root = encoder, limit_bytes, root
        self.taps, self.stored = tuple(dict.fromkeys(taps)), tuple(dict.fromkeys([*taps, *further]))
        dtype = str(next(encoder.parameters()).dtype).removeprefix("torch.")
        self.folder = root / f"{fingerprint(encoder)}-{dtype}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._rows: dict[Tap, dict[bytes, tuple[np.ndarray, int]]] = {tap: {} for tap in self.stored}
        self._seen: set[str] = set()
        self._load_segments()

    def lookup(self, view: np.ndarray) -> dict[Tap, np.ndarray] | None:
        """(3, H, W) uint8 -> tap -> (N, D), or None where the view is not stored with all taps."""
        key = view_key(view)
        found = {}
        for tap in self.taps:
            place = self._rows[tap].get(key)
            if place is None:
                return None
            found[tap] = place[0][place[1]]
        return found

    def fill(self, views: Iterable[np.ndarray], batch_size: int) -> int:
        """Compute what is missing, under the folder's lock; returns how many views the encoder saw."""
        pending = list(views)
        if not self._missing(pending):
            return 0
        # Runs of a sweep start with the same images. Whoever gets the lock computes them; the others wait, find them
        # stored (hence the second look) and compute nothing. The files would stay whole without the lock.
        with FileLock(self.folder / "lock"):
            self._load_segments()
            missing = self._missing(pending)
            for start in range(0, len(missing), SEGMENT):
                self._write(missing[start : start + SEGMENT], batch_size)
        self._load_segments()
        return len(missing)

    def _missing(self, views: list[np.ndarray]) -> list[np.ndarray]:
        unique = {view_key(view): view for view in views}
        return [view for key, view in unique.items() if any(key not in self._rows[tap] for tap in self.stored)]

    def _write(self, views: list[np.ndarray], batch_size: int) -> None:
        maps: dict[Tap, list[np.ndarray]] = {tap: [] for tap in self.stored}
        device = next(self.encoder.parameters()).device
        for start in range(0, len(views), batch_size):
            pixels = torch.from_numpy(np.stack(views[start : start + batch_size])).to(device)
            with torch.no_grad():
                features = self.encoder(self.encoder.normalize(pixels), self.stored)
            for tap, feature in zip(self.stored, features, strict=True):
                maps[tap].append(as_numpy(feature.tokens))
        arrays = {tap: np.concatenate(parts) for tap, parts in maps.items()}
        if self._used_bytes() + sum(array.nbytes for array in arrays.values()) > self.limit_bytes:
            return
        name = uuid.uuid4().hex
        for tap, array in arrays.items():
            _save(self.folder / f"{name}.{tap_name(tap)}.npy", array)
        # The keys come last: a segment counts only once they are there.
        keys = np.frombuffer(b"".join(view_key(view) for view in views), dtype=np.uint8).reshape(-1, KEY_BYTES)
        _save(self.folder / f"{name}.keys.npy", keys)

    def _used_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.root.glob("*/*.npy"))

    def _load_segments(self) -> None:
        for keys_path in sorted(self.folder.glob("*.keys.npy")):
            name = keys_path.name.removesuffix(".keys.npy")
            if name in self._seen:
                continue
            self._seen.add(name)
            keys = [row.tobytes() for row in np.load(keys_path)]
            for tap in self.stored:
                path = self.folder / f"{name}.{tap_name(tap)}.npy"
                if path.is_file():
                    array = np.load(path, mmap_mode="r")
                    self._rows[tap].update({key: (array, row) for row, key in enumerate(keys)})


def as_numpy(tokens: torch.Tensor) -> np.ndarray:
    """numpy has no bfloat16: those are stored as float32."""
    tokens = tokens.float() if tokens.dtype == torch.bfloat16 else tokens
    return tokens.cpu().numpy()


def _save(path: Path, array: np.ndarray) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


class FeatureStore:
    """Encoder name -> cache, for the encoders whose features depend on nothing but the view.

    Args:
        model: weights loaded, ``requires_grad`` set.
        folder: of all caches.
        limit_bytes: of all caches together.
        taps: name -> depths, and groups of them as lists, to store when a sweep needs more than this model; all are
            filled in one pass.
    """

    def __init__(
        self,
        model: Mllm,
        folder: Path,
        limit_bytes: int,
        taps: Mapping[str, Sequence[int | Sequence[int]]] | None = None,
    ) -> None:
        self.caches = {}
        for name in cacheable(model):
            further = [tap if isinstance(tap, int) else tuple(tap) for tap in (taps or {}).get(name, ())]
            own = model.vision.taps(name)
            self.caches[name] = EncoderFeatures(model.vision.encoders[name], own, folder, limit_bytes, further)

    def lookup(self, name: str, view: np.ndarray) -> dict[Any, np.ndarray] | None:
        """(3, H, W) uint8 -> tap -> (N, D), or None where they are not stored."""
        return self.caches[name].lookup(view) if name in self.caches else None

    def fill(self, views: Callable[[str], Iterable[np.ndarray]]) -> int:
        """Run each encoder over the views that are not stored; returns how many those were."""
        filled = 0
        for name, cache in self.caches.items():
            filled += cache.fill(views(name), BATCH)
        return filled


def cacheable(model: Mllm) -> list[str]:
    """Encoders that are frozen and into which nothing is injected."""
    if not model.has_vision:
        return []
    frozen = [
        name
        for name, encoder in model.vision.encoders.items()
        if not any(parameter.requires_grad for parameter in encoder.parameters())
    ]
    injects = type(model.vision.fusion).inject is not BaseFusion.inject
    return [] if injects else frozen
