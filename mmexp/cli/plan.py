"""``mmexp plan``: what each row of a sweep, or one config, is and costs."""

from collections.abc import Sequence

from mmexp.cli.arguments import read_arguments
from mmexp.cli.sweep import rewritten
from mmexp.config import Composer

HELP = """\
mmexp plan NAME [--scale lab|paper] [key=value ...]      each row of a sweep; of a search, its first trials
mmexp plan [--scale lab|paper] [key=value ...]           one config
"""


def main(arguments: Sequence[str]) -> int:
    found = read_arguments(arguments, max_names=1)
    if "--help" in found.flags:
        print(HELP, end="")
        return 0
    from rich.console import Console

    from mmexp.planning.datasets import print_all
    from mmexp.planning.plan import plan, print_plans
    from mmexp.sweeping.search.kinds import load
    from mmexp.sweeping.spec.rows import read_command_line

    line = read_command_line(rewritten(found))
    if line.sweep or line.axes:
        _, trials = load(found.scale, line)
        configs = {trial.request.label: trial.config for trial in reversed(trials) if trial.request.selected}
        configs = dict(reversed(configs.items()))
    else:
        with Composer(found.scale).open() as composer:
            configs = {"run": composer.compose(found.overrides).resolved()}
    print_plans([plan(label, config) for label, config in configs.items()], Console())
    print_all(configs, Console())
    return 0
