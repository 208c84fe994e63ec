"""What a trial leaves behind, written atomically and read back: ``result.json`` and ``predictions.parquet``."""

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mmexp.errors import UserError
from mmexp.evaluation.metrics import Answers
from mmexp.files import PREDICTIONS_FILE, RESULT_FILE, finite, replacing

LIBRARIES = ("mmexp", "torch", "lightning", "transformers", "timm", "tokenizers", "numpy")
COLUMNS = {
    "question_id": "question_ids",
    "family": "families",
    "image": "images",
    "question": "questions",
    "prediction": "predictions",
    "answer": "answers",
    "score": "scores",
}
"""Column of the parquet file -> field of ``Answers``; ``benchmark`` comes before them."""

Number = TypeVar("Number", float, np.ndarray)


def aggregate(values: Mapping[str, Number], aggregates: Mapping[str, Mapping[str, Any]]) -> dict[str, Number]:
    """Named averages: ``{name: {metrics: {metric: factor}}}`` -> the plain mean of factor x metric.

    The factor brings a metric to the average's scale (0.05 brings MME perception's 2000 to 100). An average that lacks
    one of its metrics is left out. Works on numbers and on arrays alike.
    """
    out = {}
    for name, node in aggregates.items():
        factors = node["metrics"]
        if factors and not missing_metrics(values, node):
            out[name] = sum(values[metric] * factor for metric, factor in factors.items()) / len(factors)
    return out


def missing_metrics(values: Mapping[str, Any], node: Mapping[str, Any]) -> list[str]:
    """Metrics that an aggregate's node names and ``values`` lacks."""
    return [metric for metric in node["metrics"] if metric not in values]


def write_result(folder: Path, result: Mapping[str, Any]) -> Path:
    """``result.json``; numbers that are not finite become null."""
    path = folder / RESULT_FILE
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(finite(result), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path


def read_result(folder: Path) -> dict[str, Any]:
    """Raises ``UserError`` when the result is missing or cannot be read."""
    path = folder / RESULT_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{path}: no result; the run has not finished") from None
    except ValueError as error:
        raise UserError(f"{path}: not readable ({error}); delete it and run again") from None


def write_predictions(folder: Path, answers: Mapping[str, Answers]) -> Path:
    """One line per question of all benchmarks."""
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, list[Any]] = {"benchmark": [], **{column: [] for column in COLUMNS}}
    for benchmark, part in answers.items():
        columns["benchmark"] += [benchmark] * len(part)
        for column, field in COLUMNS.items():
            columns[column] += list(getattr(part, field))
    kinds = {"score": pyarrow.float64()}
    table = pyarrow.table(
        {name: pyarrow.array(values, kinds.get(name, pyarrow.string())) for name, values in columns.items()}
    )
    path = folder / PREDICTIONS_FILE
    with replacing(path) as temporary:
        pyarrow.parquet.write_table(table, temporary)
    return path


def read_predictions(folder: Path) -> dict[str, Answers]:
    """Benchmark -> its answers, in the order they were asked. Raises ``UserError`` when they cannot be read."""
    import pyarrow
    import pyarrow.parquet

    path = folder / PREDICTIONS_FILE
    try:
        table = pyarrow.parquet.read_table(path).to_pydict()
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: not readable ({type(error).__name__}); the run has not finished") from None
    rows: dict[str, list[int]] = {}
    for index, benchmark in enumerate(table["benchmark"]):
        rows.setdefault(benchmark, []).append(index)
    return {benchmark: _answers(table, places) for benchmark, places in rows.items()}


def _answers(table: Mapping[str, list[Any]], rows: list[int]) -> Answers:
    fields: dict[str, Any] = {field: [table[column][row] for row in rows] for column, field in COLUMNS.items()}
    fields["scores"] = np.array(fields["scores"], dtype=float)
    return Answers(**fields)


def library_versions() -> dict[str, str]:
    """Recorded with a result, not hashed into keys."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
