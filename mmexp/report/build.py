"""A sweep's directory in, the report's files out."""

from collections.abc import Callable
from pathlib import Path

from mmexp.files import write_text
from mmexp.report.files import to_csv, to_json, to_markdown
from mmexp.report.html import to_html
from mmexp.report.results import load_sweep
from mmexp.report.table import Report, tabulate

WRITERS: dict[str, Callable[[Report], str]] = {
    "report.html": to_html,
    "report.md": to_markdown,
    "report.csv": to_csv,
    "report.json": to_json,
}


def load_report(sweep_dir: Path) -> Report:
    """Everything that the report of a sweep says, as data.

    Raises:
        UserError: no ledger there, or it cannot be read.
    """
    return tabulate(load_sweep(sweep_dir))


def write_report(report: Report, out_dir: Path) -> dict[str, Path]:
    """Write all files; each replaces its predecessor atomically. File name -> path."""
    paths = {name: out_dir / name for name in WRITERS}
    for name, path in paths.items():
        write_text(path, WRITERS[name](report))
    return paths


def report(sweep_dir: Path, out_dir: Path | None = None) -> dict[str, Path]:
    """Make the report of a sweep, beside its ledger or in ``out_dir``. File name -> path.

    Raises:
        UserError: no ledger there, or it cannot be read.
    """
    return write_report(load_report(sweep_dir), out_dir or sweep_dir)
