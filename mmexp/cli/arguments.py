"""A command line, sorted once: our own flags, Hydra's flags, overrides and names."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mmexp.config.folders import check_scale
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
RETRY = "retry_failed="


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
    retry_failed: bool = False

    @property
    def shows_only(self) -> bool:
        """Whether Hydra is asked to show something, so that nothing is run."""
        return any(flag.split("=")[0] in SHOWING for flag in self.hydra)

    @property
    def is_multirun(self) -> bool:
        return any(flag in ("--multirun", "-m") for flag in self.hydra)

    @property
    def of_sweep(self) -> list[str]:
        """Overrides for composing, with the name of the sweep; ``sweep.x=1`` may be new to its file."""
        named = [f"sweeps={self.names[0]}"] if self.names else []
        return named + [f"++{text}" if text.startswith("sweep.") else text for text in self.overrides]


def read_arguments(
    arguments: Sequence[str], own: Sequence[str] = (), max_names: int = 0, *, name_first: bool = False
) -> Arguments:
    """Sort a command line.

    Args:
        own: flags that this command has beside ``--scale`` and ``--help``.
        max_names: words that it takes, such as the name of a sweep.
        name_first: the first word is a name whatever is in it: sweeps are called ``NAME@key=value``.

    Raises:
        UserError: an unknown flag or scale, too many words.
    """
    found, left = Arguments(), list(arguments)
    if name_first and left and not left[0].startswith(("-", "sweeps=")):
        found.names.append(left.pop(0))
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
        elif word.startswith(RETRY):
            found.retry_failed = _switch(word)
        elif "=" in word or word.startswith("~"):
            found.overrides.append(word)
        else:
            found.names.append(word)
    if len(found.names) > max_names:
        raise UserError(f"'{found.names[max_names]}': neither an override (key=value) nor a flag")
    return found


def _switch(word: str) -> bool:
    value = word.removeprefix(RETRY).lower()
    if value not in ("true", "false"):
        raise UserError(f"{word}: must be true or false")
    return value == "true"
