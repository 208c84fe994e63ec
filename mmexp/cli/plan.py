"""``mmexp plan``: what each row of a sweep, or one config, is and costs."""

from collections.abc import Sequence

from mmexp.cli.arguments import read_arguments

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
    from mmexp.sweeping.session import known_trials

    _, trials = known_trials(found.scale, found.of_sweep)
    selected = [trial for trial in trials if trial.request.selected]
    configs = dict(reversed({trial.request.label: trial.config for trial in reversed(selected)}.items()))
    print_plans([plan(label, config) for label, config in configs.items()], Console())
    print_all(configs, Console())
    return 0
