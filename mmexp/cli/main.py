"""``mmexp``: finds the command, turns its mistakes into one line and an exit code.

Exit codes: 0 all that was asked for was done, 1 a trial has no result, 2 the user's mistake, 130 interrupted.
"""

import gc
import importlib
import sys
from collections.abc import Sequence

from mmexp.errors import UserError, nearest
from mmexp.instantiate import see_working_directory

HELP = """\
mmexp: ablations over multimodal LLMs. A paper's table is one config file.

  mmexp list [GROUP]                       what can be composed, with a line each
  mmexp run   experiments=llava15          one run: stages, evaluation, result
  mmexp sweep llava15/connector            a paper's table; the same command resumes it
  mmexp plan  llava15/connector            parameters, tokens and samples of each row, before anything is launched
  mmexp eval  RUN_DIR benchmark=[...]      a finished run on further benchmarks
  mmexp report llava15/connector           table, statistics, findings: report.html, .md, .csv, .json
  mmexp convert NAME RAW OUT               a dataset from its official files to JSON lines
  mmexp import NAME CKPT OUT               released weights, for a stage to start from
  mmexp store ls|explain KEY|gc            finished stages and runs, why one is not used again, cleaning
  mmexp lab   build|show|check             the drawn world and its small experts

  --scale lab|paper    small real models on a drawn world (default), or the paper's models and data
  --dry-run            of a run or a sweep: check everything, show what would be made, start nothing
  --explain            of a run: which stages exist, and why a missing one is not an existing one
  key=value            chooses an option or sets a value, as in Hydra; also -m, --cfg job, --info

More: mmexp COMMAND --help
"""

GC_THRESHOLD = 100_000
"""New objects between looks for garbage; with Python's 700 a quarter of a check's time goes into looking."""
COMMANDS = {
    "list": "mmexp.cli.list",
    "run": "mmexp.cli.run",
    "sweep": "mmexp.cli.sweep",
    "plan": "mmexp.cli.plan",
    "eval": "mmexp.cli.eval",
    "report": "mmexp.cli.report",
    "convert": "mmexp.cli.convert",
    "import": "mmexp.cli.import_weights",
    "store": "mmexp.cli.store",
    "lab": "mmexp.cli.lab",
}
"""Command -> module with ``main(arguments) -> exit code``; imported when it is called."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    gc.set_threshold(GC_THRESHOLD)  # importing and composing make many objects and hardly any garbage
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if given[0] == "--version":
        from mmexp import __version__

        print(f"mmexp {__version__}")
        return 0
    see_working_directory()
    return guarded(given[0], given[1:])


def guarded(command: str, arguments: Sequence[str]) -> int:
    """Run one command; a user's mistake becomes a line, anything else of ours a traceback."""
    try:
        if command not in COMMANDS:
            raise UserError(f"no command '{command}'; {nearest(command, COMMANDS)}")
        return importlib.import_module(COMMANDS[command]).main(list(arguments))
    except UserError as error:
        for line in str(error).splitlines():
            print(f"mmexp: error: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mmexp: interrupted; the same command resumes from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1


if __name__ == "__main__":
    sys.exit(main())
