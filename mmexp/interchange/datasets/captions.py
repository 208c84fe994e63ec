"""Captions: COYO-100M is the part of COYO-700M whose CLIP similarity is at least 0.3; the images must be fetched."""

from collections.abc import Iterator
from pathlib import Path

from mmexp.errors import UserError
from mmexp.interchange.datasets.base import Record

SIMILARITY = "clip_similarity_vitb32"
LEAST_SIMILARITY = 0.3


class Coyo100M:
    """``{"id", "url", "caption"}`` for img2dataset, whose shards the source ``TarShards`` reads."""

    needs = "folder with COYO-700M's *.parquet"

    def records(self, raw: Path) -> Iterator[Record]:
        import pyarrow
        import pyarrow.parquet

        paths = sorted(raw.glob("*.parquet"))
        if not paths:
            raise UserError(f"{raw}: no .parquet file")
        for path in paths:
            try:
                file = pyarrow.parquet.ParquetFile(path)
            except (OSError, pyarrow.ArrowException) as error:
                raise UserError(f"{path}: not parquet: {error}") from error
            missing = {"id", "url", "text", SIMILARITY} - set(file.schema_arrow.names)
            if missing:
                raise UserError(f"{path}: no column '{sorted(missing)[0]}'; is this COYO-700M?")
            for batch in file.iter_batches(columns=["id", "url", "text", SIMILARITY]):
                for row in batch.to_pylist():
                    if (row[SIMILARITY] or 0) >= LEAST_SIMILARITY:
                        yield {"id": str(row["id"]), "url": row["url"], "caption": row["text"] or ""}
