"""Where mmexp's configs are looked up."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class MmexpSearchPath(SearchPathPlugin):
    """The user's own folders first, then conf/ (Hydra's main entry), then what lies beside it.

    Only for mmexp's commands: other Hydra applications in the environment are left alone.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        from mmexp.config.folders import active_scale, config_root, own_folders

        scale = active_scale()
        if scale is None:
            return
        for folder in reversed(own_folders(scale)):
            search_path.prepend(provider="yours", path=f"file://{folder}")
        search_path.append(provider="mmexp", path=f"file://{config_root()}")
