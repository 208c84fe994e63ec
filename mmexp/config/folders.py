"""Folders of config files, the user's own before the shipped ones, and what can be chosen in them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmexp.errors import UserError, nearest

SCALES = ("lab", "paper")
HIDDEN = ("scale", "hydra")
"""Folders of conf/ that are not groups."""
OF_COMMANDS = {"converter": "convert", "importer": "import"}
"""Groups that are not part of a run -> the command that takes one of their options by name."""
TOP_GROUPS = ("experiments", "sweeps")
"""Groups whose folders are beside conf/, not in it."""

_active: list[str] = []


def config_root() -> Path:
    """The folder with conf/, experiments/ and sweeps/: inside the wheel, else the repository."""
    package = Path(__file__).resolve().parent.parent
    packaged = package / "_config"
    return packaged if packaged.is_dir() else package.parent


def check_scale(scale: str) -> None:
    if scale not in SCALES:
        raise UserError(f"--scale: unknown '{scale}'; {nearest(scale, SCALES)}")


def own_folders(scale: str) -> list[Path]:
    """The user's config folders in the working directory, those that exist and are not the shipped ones."""
    here = Path.cwd()
    own = [here / "conf" / "scale" / scale, here / "conf"]
    if any((here / group).is_dir() for group in TOP_GROUPS):
        own.append(here)
    shipped = shipped_folders(scale)
    return [folder for folder in own if folder.is_dir() and folder not in shipped]


def shipped_folders(scale: str) -> list[Path]:
    root = config_root()
    return [root / "conf", root / "conf" / "scale" / scale, root]


def search_folders(scale: str) -> list[Path]:
    """Folders that groups are looked up in, in the order in which Hydra searches them."""
    return [*own_folders(scale), *shipped_folders(scale)]


@contextmanager
def searching(scale: str) -> Iterator[None]:
    """While open, Hydra's search path is mmexp's (other Hydra applications of the environment keep theirs)."""
    _active.append(scale)
    try:
        yield
    finally:
        _active.pop()


def active_scale() -> str | None:
    """The scale whose configs Hydra searches now; None outside ``searching``."""
    return _active[-1] if _active else None


def groups(scale: str) -> list[str]:
    """Names of the config groups that a user chooses from."""
    names = set(TOP_GROUPS)
    for folder in search_folders(scale):
        if folder.name in ("conf", scale):
            names.update(path.name for path in folder.iterdir() if path.is_dir() and path.name not in HIDDEN)
    return sorted(names)


def options(group: str, scale: str) -> dict[str, Path]:
    """Option -> file of a group; of two with the same name the one that Hydra finds first."""
    found: dict[str, Path] = {}
    for folder in search_folders(scale):
        base = folder / group
        for path in sorted(base.rglob("*.yaml")) if base.is_dir() else []:
            found.setdefault(path.relative_to(base).with_suffix("").as_posix(), path)
    return dict(sorted(found.items()))


def headline(path: Path) -> str:
    """First comment line of a config file, directives apart: what the option is."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("#") and not line.startswith("# @"):
                return line.lstrip("# ").strip()
            if line.strip() and not line.startswith("#"):
                break
    return ""
