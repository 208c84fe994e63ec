"""The parts of docs/extend.md, importable in this process, for contract tests."""

import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mmexp.instantiate import allow_prefixes
from tests.doors.page import sections


@cache
def folder() -> Path:
    """All files of the page in one folder, whose modules configs may name."""
    root = Path(tempfile.mkdtemp(prefix="mmexp-extend-"))
    for section in sections().values():
        section.write(root)
    allow_prefixes(path.stem for path in root.glob("*.py"))
    sys.path.append(str(root))
    return root


def own_node(group: str, option: str = "mine") -> dict[str, Any]:
    """The node of an option of the page that has no defaults and refers to nothing."""
    loaded: Any = OmegaConf.to_container(OmegaConf.load(folder() / "conf" / group / f"{option}.yaml"))
    return loaded
