"""Was mmexp's own code edited while a sweep runs?"""

from pathlib import Path

PACKAGE = Path(__file__).parents[2]


class CodeWatch:
    """Remembers the package's files as they are now."""

    def __init__(self, folder: Path = PACKAGE) -> None:
        self.folder = folder
        self._before = self._look()

    def first_edit(self) -> Path | None:
        """A file that was changed, added or removed since the last call (or since the start)."""
        now, before = self._look(), self._before
        self._before = now
        return next((path for path in sorted(now.keys() | before.keys()) if now.get(path) != before.get(path)), None)

    def _look(self) -> dict[Path, tuple[int, int]]:
        found = {}
        for path in self.folder.rglob("*.py"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            found[path] = (stat.st_mtime_ns, stat.st_size)
        return found
