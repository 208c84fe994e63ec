"""The seam to the ledger: what a sweep left on disk, as ``SweepResults``."""

import json
from pathlib import Path

from mmexp.errors import UserError
from mmexp.files import LEDGER_FILE
from mmexp.report.results import SweepResults, Trial


def load_sweep(sweep_dir: Path) -> SweepResults:
    """Raises ``UserError`` when there is no ledger, or it cannot be read."""
    path = sweep_dir / LEDGER_FILE
    try:
        ledger = json.loads(path.read_text(encoding="utf-8"))
        trials = [
            Trial(
                row=str(entry["row"]),
                axes={str(axis): str(value) for axis, value in (entry.get("axes") or {}).items()},
                seed=entry.get("seed"),
                key=str(entry["key"]),
                status=str(entry["status"]),
                reason=str(entry.get("reason") or ""),
                log_tail=str(entry.get("log_tail") or ""),
                overrides=tuple(entry.get("overrides") or ()),
                folder=Path(entry["folder"]) if entry.get("folder") else None,
            )
            for entry in ledger["trials"]
        ]
        return SweepResults(
            name=ledger["name"],
            scale=ledger["scale"],
            node=ledger["sweep"],
            trials=tuple(trials),
            search=ledger.get("search") or {},
        )
    except OSError:
        raise UserError(f"{path}: no ledger; run 'mmexp sweep' first, or give the folder of a sweep") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not readable ({type(error).__name__}: {error})") from None
