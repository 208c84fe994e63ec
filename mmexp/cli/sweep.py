"""``mmexp sweep NAME``: a table of trials, started or continued."""

from collections.abc import Sequence

from mmexp.cli.arguments import Arguments, read_arguments
from mmexp.cli.list import describe
from mmexp.cli.run import start
from mmexp.errors import UserError

HELP = """\
mmexp sweep NAME [--scale lab|paper] [--dry-run] [key=value ...]

  --dry-run                     validate every trial, show trials and stages, start nothing
  sweep.seeds=[0,1,2]           other seeds          sweep.only=[row,row]    some rows only
  key=a,b                       a further axis       key=value               for all rows
  retry_failed=true             run again what failed; what was killed always goes on
  hydra.launcher.n_jobs=4       workers at a time    hydra.launcher.timeout_s=3600    limit for each stage
  hydra/launcher=inline         in this process, for debugging

The same command goes on with a sweep that was ended; finished trials and stages are used again.

"""


def main(arguments: Sequence[str]) -> int:
    found = read_arguments(arguments, own=("--dry-run",), max_names=1)
    if "--help" in found.flags:
        print(HELP + describe("sweeps", found.scale))
        return 0
    if not found.names and not any(text.startswith("sweeps=") for text in found.overrides):
        raise UserError("which sweep? 'mmexp list sweeps' shows them")
    found.overrides = rewritten(found)
    if not found.shows_only:
        found.hydra.append("--multirun")
    return start(found)


def rewritten(found: Arguments) -> list[str]:
    """Overrides for Hydra: the sweep's name, and the short forms written out."""
    overrides = [f"sweeps={found.names[0]}"] if found.names else []
    for text in found.overrides:
        if text.startswith("sweep."):
            text = f"++{text}"
        elif text.startswith("retry_failed="):
            text = f"hydra.sweeper.{text}"
        overrides.append(text)
    if "--dry-run" in found.flags:
        overrides.append("hydra.sweeper.dry_run=true")
    return overrides
