"""``mmexp sweep NAME``: a table or a search, started or resumed."""

import sys
from collections.abc import Sequence

from mmexp.cli.arguments import Arguments, read_arguments
from mmexp.cli.list import describe
from mmexp.errors import UserError

HELP = """\
mmexp sweep NAME [--scale lab|paper] [--dry-run] [key=value ...]

  --dry-run                     check every trial, show trials and stages, start nothing
  sweep.seeds=[0,1,2]           other seeds          sweep.only=[row,row]    some rows only
  key=a,b                       a further axis       key=value               for all rows
  retry_failed=true             run again what failed; what was killed always resumes
  hydra.launcher.n_jobs=4       workers at a time    hydra.launcher.timeout_s=3600    limit for each stage
  hydra/launcher=inline         in this process, for debugging

The same command resumes a sweep that was ended; finished trials and stages are used again.

"""


def main(arguments: Sequence[str]) -> int:
    found = read_arguments(arguments, own=("--dry-run",), max_names=1)
    if "--help" in found.flags:
        print(HELP + describe("sweeps", found.scale))
        return 0
    if not found.names and not any(text.startswith("sweeps=") for text in found.overrides):
        raise UserError("which sweep? 'mmexp list sweeps' shows them")
    if found.shows_only:
        from mmexp.cli.hydra_app import show

        show(found)
        return 0
    return start(found)


def start(found: Arguments) -> int:
    """Run a sweep, or a multirun without a sweep's file; 1 where a trial has no result."""
    print(f"mmexp: composing {found.names[0] if found.names else 'the multirun'}", file=sys.stderr, flush=True)
    from mmexp.report.show import show_report
    from mmexp.sweeping.session import MissingResultsError, Order, run_sweep

    order = Order(
        scale=found.scale,
        arguments=found.of_sweep,
        dry_run="--dry-run" in found.flags,
        retry_failed=found.retry_failed,
        report=show_report,
    )
    try:
        run_sweep(order)
    except MissingResultsError as error:
        print(f"mmexp: {error}", file=sys.stderr)
        return 1
    return 0
