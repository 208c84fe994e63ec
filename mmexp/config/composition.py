"""One config from files and overrides, checked: mistakes that Hydra would silently accept are refused."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmexp.config.bodies import check_bodies
from mmexp.config.folders import check_scale, groups, options
from mmexp.config.hydra_session import hydra_open
from mmexp.config.mistakes import user_errors
from mmexp.config.per_encoder import expand_stages
from mmexp.config.per_seed import PerSeed
from mmexp.errors import UserError, nearest
from mmexp.instantiate import allow_prefixes

if TYPE_CHECKING:
    from omegaconf import DictConfig

MAX_SEED = 2**32
NO_OPTIONS = ("null", "true", "false", "")
"""Values that Hydra does not read as a name."""
LAUNCHER, SWEEPER = "hydra/launcher", "hydra/sweeper"
LISTS = ("encoder", "benchmark")
"""Groups of which several options are chosen."""


@dataclass(frozen=True, slots=True)
class Composed:
    """A checked config and what was chosen for it."""

    config: "DictConfig"
    choices: dict[str, Any]
    """Config group -> option; encoders and benchmarks as lists."""
    scale: str
    launcher: dict[str, Any] = field(default_factory=dict)
    """The node ``hydra.launcher``."""

    def resolved(self, **values: Any) -> dict[str, Any]:
        """Plain containers without interpolations and stage templates, after setting top-level ``values`` (a seed).

        Raises:
            UserError: a value that refers to nothing; see also ``expand_stages``.
        """
        from omegaconf import OmegaConf

        with user_errors((), self.scale), _values_set(self.config, values):
            container: Any = OmegaConf.to_container(self.config, resolve=True)
        allow_prefixes(container.get("allow_targets"))
        return expand_stages(container)

    def for_trials(self, overrides: Sequence[str]) -> PerSeed:
        """The resolved configs of its seeds, without the node ``sweep``.

        Args:
            overrides: that it was composed with.

        Raises:
            UserError: see ``resolved``.
        """

        def resolve(seed: int) -> dict[str, Any]:
            found = self.resolved(seed=seed, sweep=None)
            del found["sweep"]
            return found

        return PerSeed(resolve, tuple(overrides), self.scale)


@contextmanager
def _values_set(config: "DictConfig", values: Mapping[str, Any]) -> Iterator[None]:
    """Top-level values while open; copying a config would take longer than resolving it."""
    from omegaconf import open_dict

    before = {name: config._get_node(name) for name in values}
    with open_dict(config):
        config.update(values)
    try:
        yield
    finally:
        with open_dict(config):
            for name, node in before.items():
                config[name] = node


class Composer:
    """Composes configs of one scale; open it once for many."""

    def __init__(self, scale: str) -> None:
        check_scale(scale)
        self.scale = scale

    @contextmanager
    def open(self) -> Iterator["Composer"]:
        """Hydra is initialised while open; a Hydra application around it gets its own state back."""
        with hydra_open(self.scale):
            yield self

    def compose(self, overrides: Sequence[str] = ()) -> Composed:
        """Raises ``UserError`` for anything wrong in the overrides or in a file; values are not resolved yet."""
        import hydra
        from omegaconf import OmegaConf, open_dict

        check_overrides(overrides)
        _check_launcher(overrides, self.scale)
        with user_errors(overrides, self.scale):
            config = hydra.compose(self.scale, overrides=list(overrides), return_hydra_config=True)
            choices = chosen(config, config.hydra.runtime.choices)
            launcher: Any = OmegaConf.to_container(config.hydra.launcher, resolve=True)
            with open_dict(config):
                del config["hydra"]
            check(config, self.scale)
            check_bodies(self.scale, choices)
        return Composed(config, choices, self.scale, launcher)


def compose(scale: str, overrides: Sequence[str] = ()) -> "DictConfig":
    """The config of one run, without its ``hydra`` node, checked.

    Raises:
        UserError: anything wrong in ``overrides`` or in a file.
    """
    with Composer(scale).open() as composer:
        composed = composer.compose(overrides)
    composed.resolved()
    return composed.config


def check_overrides(overrides: Sequence[str]) -> None:
    """Raises ``UserError`` for an override without a key, which Hydra's parser cannot report, and a repeated name."""
    for override in overrides:
        if not override.lstrip("+~") or override.lstrip("+~").startswith("="):
            raise UserError(f"'{override}' is not a valid override; write key=value")
        _check_once(override)


def _check_launcher(overrides: Sequence[str], scale: str) -> None:
    """Hydra has launchers and sweepers of its own, which cannot run frozen stages."""
    for override in overrides:
        key, _, value = override.partition("=")
        if key.replace(".", "/").startswith(SWEEPER):
            raise UserError(f"{override}: sweep.search._target_ says what kind of sweep it is; leave {SWEEPER} out")
        there = options(LAUNCHER, scale) if key == LAUNCHER else {}
        if key in groups(scale) and value in NO_OPTIONS:
            raise UserError(f"{override}: must name an option; {nearest(value, options(key, scale))}")
        if key == LAUNCHER and value not in there:
            raise UserError(f"{override}: no such option at scale {scale}; {nearest(value, there)}")


def _check_once(override: str) -> None:
    """Of two equal names Hydra silently drops one: ``encoder=[clip,clip]`` would be one encoder."""
    group, _, value = override.lstrip("+~").partition("=")
    if group not in LISTS or not value.startswith("["):
        return
    names = [name.strip(" '\"") for name in value.strip("[] ").split(",")]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{override}: '{twice}' occurs twice; each {group} can be chosen once")


def chosen(config: "DictConfig", hydra_choices: Mapping[Any, Any]) -> dict[str, Any]:
    """Config group -> option. Hydra leaves out groups whose choice is a list."""
    choices = {
        str(group): option
        for group, option in hydra_choices.items()
        if option is not None and not str(group).startswith("hydra/") and "@" not in str(group)
    }
    return {**choices, "encoder": list(config.model.encoders), "benchmark": list(config.get("benchmarks") or {})}


def check(config: "DictConfig", scale: str) -> None:
    """What Hydra lets through: unknown top-level keys, ghost encoders, a seed that is not an integer.

    Raises:
        UserError: the first such thing.
    """
    from omegaconf import OmegaConf

    _check_top_level(config, scale)
    if isinstance(config.get("sweep"), str):
        raise UserError(f"sweep={config.sweep}: a sweep is chosen with sweeps={config.sweep}")
    if not OmegaConf.is_interpolation(config, "seed"):
        check_seed(config.seed, "seed")
    for name in config.model.encoders:
        node = config.model.encoders[name]
        if not hasattr(node, "get") or "_target_" not in node:
            raise UserError(
                f"model.encoders.{name}: has no _target_, so no encoder of that name is chosen; "
                f"choose from: {', '.join(options('encoder', scale))}"
            )


def check_seed(seed: Any, key: str) -> None:
    """Raises ``UserError`` unless it is what NumPy and torch take."""
    if type(seed) is not int:
        raise UserError(f"{key}: '{seed}' must be an integer")
    if not 0 <= seed < MAX_SEED:
        raise UserError(f"{key}: {seed} must be at least 0 and below {MAX_SEED}")


def _check_top_level(config: "DictConfig", scale: str) -> None:
    """After a plus, Hydra takes any key: ``+experiment=x`` would run the baseline."""
    known = {*groups(scale), *_default_keys(scale, Path.cwd())}
    for key in map(str, config):
        if key not in known:
            raise UserError(f"{key}: no such key; {nearest(key, known)}")


@cache
def _default_keys(scale: str, folder: Path) -> frozenset[str]:
    """Top-level keys of the config without overrides, as composed in ``folder``."""
    import hydra

    with Composer(scale).open():
        return frozenset(map(str, hydra.compose(scale)))
