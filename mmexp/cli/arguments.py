"""Between the command line and Hydra: our own flags taken out, Hydra started, its errors turned into lines."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mmexp.config import Composed, Composer, check_scale, config_root, register_resolvers
from mmexp.config.folders import searching
from mmexp.config.mistakes import OWN_PLUGINS, user_errors
from mmexp.errors import UserError, nearest

DEFAULT_SCALE = "lab"
HYDRA_FLAGS = (
    "--cfg", "-c", "--info", "-i", "--resolve", "--package", "-p", "--multirun", "-m", "--run", "-r",
    "--hydra-help", "--shell-completion", "-sc", "--config-dir", "-cd",
)  # fmt: skip
WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--config-dir", "-cd")
INFO = ("--info", "-i")
INFO_KINDS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
SHOWING = ("--cfg", "-c", *INFO, "--hydra-help", "--shell-completion", "-sc")
"""Hydra's flags that show something and run nothing."""


@dataclass
class Arguments:
    """A command line, sorted."""

    scale: str = DEFAULT_SCALE
    flags: set[str] = field(default_factory=set)
    """Our own flags that were given."""
    names: list[str] = field(default_factory=list)
    """Words that are neither overrides nor flags."""
    overrides: list[str] = field(default_factory=list)
    hydra: list[str] = field(default_factory=list)
    """Flags for Hydra, with their values."""

    @property
    def shows_only(self) -> bool:
        return any(flag.split("=")[0] in SHOWING for flag in self.hydra)


def read_arguments(arguments: Sequence[str], own: Sequence[str] = (), max_names: int = 0) -> Arguments:
    """Sort a command line.

    Args:
        own: flags that this command has beside ``--scale`` and ``--help``.
        max_names: words that it takes, such as the name of a sweep.

    Raises:
        UserError: an unknown flag or scale, too many words.
    """
    found, left = Arguments(), list(arguments)
    while left:
        word = left.pop(0)
        name, _, value = word.partition("=")
        if name == "--scale":
            found.scale = value or (left.pop(0) if left else "")
            check_scale(found.scale)
        elif word in ("--help", "-h", *own):
            found.flags.add("--help" if word == "-h" else word)
        elif word.startswith("-"):
            if name not in HYDRA_FLAGS:
                raise UserError(f"no flag '{word}'; {nearest(name, ['--scale', '--help', *own, *HYDRA_FLAGS])}")
            found.hydra.append(word)
            if left and not value and (name in WITH_VALUE or (name in INFO and left[0] in INFO_KINDS)):
                found.hydra.append(left.pop(0))
        elif "=" in word or word.startswith("~"):
            found.overrides.append(word)
        else:
            found.names.append(word)
    if len(found.names) > max_names:
        raise UserError(f"'{found.names[max_names]}': neither an override (key=value) nor a flag")
    return found


def run_hydra(scale: str, arguments: Sequence[str], overrides: Sequence[str]) -> Composed | None:
    """Start Hydra's application.

    Returns:
        The config of a single run; None when Hydra only showed something, or its sweeper has done everything.

    Raises:
        UserError: anything wrong in the configs, or from our sweepers.
    """
    import hydra

    from mmexp.config.bodies import check_bodies
    from mmexp.config.composition import check, check_overrides, chosen
    from mmexp.config.hydra_session import VERSION_BASE

    captured: list[Composed] = []

    def task(config: Any) -> None:
        from hydra.core.hydra_config import HydraConfig

        captured.append(Composed(config, chosen(config, HydraConfig.get().runtime.choices), scale))

    check_overrides(overrides)
    check_plugins(overrides)
    register_resolvers()
    application = hydra.main(config_path=str(config_root() / "conf"), config_name=scale, version_base=VERSION_BASE)
    with searching(scale), user_errors(overrides, scale), _hydra_process([*arguments, *overrides]):
        application(task)()
        if captured:
            with Composer(scale).open():
                check(captured[-1].config, scale)
                check_bodies(scale, captured[-1].choices)
    return captured[-1] if captured else None


def check_plugins(overrides: Sequence[str]) -> None:
    """Raises ``UserError`` for a launcher or sweeper that is not ours, before Hydra's own write anything."""
    for text in overrides:
        group, _, option = text.partition("=")
        if option not in OWN_PLUGINS.get(group, (option,)):
            raise UserError(f"{text}: mmexp has its own; {nearest(option, OWN_PLUGINS[group])}")


@contextmanager
def _hydra_process(arguments: Sequence[str]) -> Iterator[None]:
    """Hydra reads ``sys.argv``, and prints errors itself unless it is asked for full ones."""
    before, error_mode = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["mmexp", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = before
        if error_mode is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = error_mode
