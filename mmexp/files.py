"""The names of the files that runs leave behind, the states they can be in, and reading and writing them whole."""

import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STAGE_FILE = "stage.json"
"""Marks a finished stage or run; written last."""
PROGRESS_FILE = "progress.json"
WEIGHTS_FILE = "weights.safetensors"
"""What a stage trained."""
MODEL_FILE = "model.safetensors"
"""A whole network under its library's own names, as Hugging Face calls it."""
LINEAGE_FILE = "init_from.json"
"""The stages that a stage started from."""
CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.jsonl"
"""Curves, a line per logged step."""
RESULT_FILE = "result.json"
PREDICTIONS_FILE = "predictions.parquet"
LEDGER_FILE = "ledger.json"
LOCKS_FOLDER = ".owners"
FINGERPRINTS_FILE = ".fingerprints.jsonl"
"""What large data files hold, remembered; in the store."""
SHARD_COUNTS_FILE = "mmexp_counts.json"
"""How many samples tar shards have, noted beside them; no data."""

PENDING, RUNNING, DONE = "pending", "running", "done"
FAILED, KILLED = "failed", "killed"
"""Killed work resumes when the command is given again; failed work only when asked to."""
PRUNED = "pruned"
"""Ended by a search that saw enough of it: no result, and none is missing."""
BLOCKED = "blocked"
"""A stage that is not made, since what it needs failed."""
NOT_SELECTED = "not selected"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends without an error.

    A reader sees the old file or the new one; after an error the old file stays and nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Atomically replace ``path``."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Atomically replace ``path``; numbers that are not finite become null, so that the file stays JSON."""
    write_text(path, json.dumps(finite(value), indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value, or None where the file is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def finite(value: Any) -> Any:
    """Nested containers with None in the place of numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
