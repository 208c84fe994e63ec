"""The command line of a sweep, sorted by what each override is for."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmexp.config.composition import check_seed
from mmexp.config.overrides import key_of, parse

MULTIRUN = "multirun"
NOT_IDENTITY = ("sweep", "hydra", "paths", "logger", "sweeps")
"""Overrides of these keys do not make another sweep."""
MAX_NAME = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandLine:
    """Overrides of a sweep."""

    sweep: str | None
    """Option of the group ``sweeps``."""
    plain: tuple[str, ...]
    """Those with one value, ``sweeps=...`` among them."""
    axes: Mapping[str, tuple[str, ...]]
    """Key -> overrides, one for each value."""
    seeds: tuple[int, ...] | None
    keys: frozenset[str] = field(default=frozenset())
    """Keys of ``plain``."""
    ranges: Mapping[str, str] = field(default_factory=dict)
    """Key -> override as it was given, of every key but ``seed`` with several values or an interval."""

    @property
    def for_trials(self) -> tuple[str, ...]:
        """What every trial is composed with: all but changes of the table itself and of where it runs."""
        return tuple(text for text in self.plain if key_of(text).split(".")[0].split("/")[0] not in ("sweep", "hydra"))

    @property
    def name(self) -> str:
        """Of the sweep's folder: the sweep, and what the command line changes in it."""
        own = [text for text in self.plain if key_of(text).split(".")[0].split("/")[0] not in NOT_IDENTITY]
        own += [
            f"{key}={','.join(text.split('=', 1)[1] for text in self.axes.get(key, (given,)))}"
            for key, given in self.ranges.items()
        ]
        suffix = slug(own)
        if self.sweep is None:
            return f"{MULTIRUN}/{suffix or 'default'}"
        return f"{self.sweep}@{suffix}" if suffix else self.sweep


def read_command_line(arguments: Sequence[str]) -> CommandLine:
    """Sort overrides. A key with several values becomes an axis; ``seed`` gives the seeds.

    Raises:
        UserError: an override that cannot be read, a seed that is not an integer.
    """
    plain: list[str] = []
    axes: dict[str, tuple[str, ...]] = {}
    seeds: tuple[int, ...] | None = None
    ranges: dict[str, str] = {}
    sweep, keys = None, set()
    for override in parse(arguments):
        key = override.key_or_group
        if key == "seed":
            seeds = _seeds(override)
        elif override.is_sweep_override():
            ranges[key] = str(override.input_line)
            if override.is_discrete_sweep():
                axes[key] = tuple(f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator())
        else:
            plain.append(str(override.input_line))
            keys.add(key)
            if key == "sweeps":
                sweep = str(override.value())
    return CommandLine(sweep=sweep, plain=tuple(plain), axes=axes, seeds=seeds, keys=frozenset(keys), ranges=ranges)


def slug(overrides: Sequence[str]) -> str:
    """A folder name for a set of overrides: themselves where they are short, else shortened with a hash."""
    text = ",".join(sorted(overrides))
    clean = re.sub(r"[^\w=,.+~-]+", "_", text)
    if clean == text and len(clean) <= MAX_NAME:
        return clean
    return f"{clean[:MAX_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _seeds(override: Any) -> tuple[int, ...]:
    values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    for value in values:
        check_seed(value, str(override.input_line))
    return tuple(dict.fromkeys(values))
