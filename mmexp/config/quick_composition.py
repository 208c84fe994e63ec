"""Hydra's composition without what it does again and again: a sweep composes a config for each row.

Of the time of a row's composition, reading YAML files took a third, correcting the parents of all nodes after each of
some seventy merges a quarter, and maps for interpolated defaults lists, of which there are none, another quarter.
Nothing here changes what comes out (a test compares whole configs with Hydra's own). It relies on Hydra 1.3's
internals, to which mmexp is pinned.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl


@contextmanager
def quick_composition(loader: Any) -> Iterator[None]:
    """While open, what ``loader`` composes is composed quickly."""
    lists: Any = defaults_list
    own_map = lists._create_interpolation_map
    loader.repository = _ReadOnce(loader.repository)
    loader.__class__ = _MergeAtOnce

    def map_where_needed(overrides: Any, defaults: list[Any], self_added: bool) -> Any:
        return own_map(overrides, defaults, self_added) if any(map(_is_interpolated, defaults)) else None

    lists._create_interpolation_map = map_where_needed
    try:
        yield
    finally:
        lists._create_interpolation_map = own_map
        loader.__class__ = ConfigLoaderImpl


class _ReadOnce:
    """Hydra's repository of config files, each read and parsed once for all compositions.

    Hydra copies its repository for each composition and merges what it gets in place: a copy is the same repository,
    and each composition gets copies of the files.
    """

    def __init__(self, repository: Any) -> None:
        self._repository = repository
        self._loaded: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._repository, name)

    def __deepcopy__(self, memo: Any) -> "_ReadOnce":
        return self

    def load_config(self, config_path: str) -> Any:
        if config_path not in self._loaded:
            self._loaded[config_path] = self._repository.load_config(config_path)
        return deepcopy(self._loaded[config_path])


class _MergeAtOnce(ConfigLoaderImpl):
    """Merges all files of a config in one call, after which parents are corrected once."""

    def _compose_config_from_defaults_list(self, defaults: Any, repo: Any) -> Any:
        from omegaconf import OmegaConf, flag_override
        from omegaconf.errors import OmegaConfBaseException

        config = OmegaConf.create()
        try:
            with flag_override(config, "no_deepcopy_set_nodes", True):
                loaded = [self._load_single_config(default=default, repo=repo).config for default in defaults]
                config.merge_with(*loaded)
        except OmegaConfBaseException:  # Hydra's own way names the file
            return super()._compose_config_from_defaults_list(defaults, repo)
        _strip_defaults(config)
        return config


def _strip_defaults(node: Any) -> None:
    """Take out the defaults lists that are left in nodes, as Hydra does."""
    from omegaconf import DictConfig, flag_override

    if not isinstance(node, DictConfig) or node._is_missing() or node._is_none():
        return
    with flag_override(node, ["readonly", "struct"], False):
        if node._get_flag("HYDRA_REMOVE_TOP_LEVEL_DEFAULTS"):
            node._set_flag("HYDRA_REMOVE_TOP_LEVEL_DEFAULTS", None)
            node.pop("defaults", None)
        for _, value in node.items_ex(resolve=False):
            _strip_defaults(value)


def _is_interpolated(default: Any) -> bool:
    return bool(default.is_interpolation())
