"""What ends a sweep: the report's files beside the ledger, and the table on the screen."""

from pathlib import Path

from rich.console import Console

from mmexp.report.build import load_report, write_report
from mmexp.report.study import show_study
from mmexp.report.terminal import print_report


def show_report(folder: Path, console: Console) -> None:
    """Write the report into a sweep's folder and print its table."""
    made = load_report(folder)
    paths = write_report(made, folder)
    print_report(made, console)
    console.print(f"report: {paths['report.html']}", soft_wrap=True, markup=False)
    show_study(folder, console)
