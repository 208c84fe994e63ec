"""docs/extend.md as a test reads it: sections with their files and commands."""

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "extend.md"
BLOCK = re.compile(r"^```\w+\n# (?P<name>\S+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^    mmexp (?P<words>.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Section:
    """One kind of part."""

    title: str
    files: dict[str, str] = field(default_factory=dict)
    """Path -> text."""
    commands: list[list[str]] = field(default_factory=list)
    """Words after ``mmexp``."""

    @property
    def overrides(self) -> list[str]:
        """What its ``mmexp run`` chooses beside the experiment."""
        runs = [words for words in self.commands if words[0] == "run"]
        return [word for word in runs[-1][1:] if not word.startswith("experiments=")]

    def write(self, folder: Path) -> None:
        for name, text in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def sections() -> dict[str, Section]:
    """Title -> section, of those that hold an example."""
    parts = re.split(r"^### (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = {}
    for title, text in zip(parts[::2], parts[1::2], strict=True):
        files = {match["name"]: match["text"] for match in BLOCK.finditer(text)}
        commands = [shlex.split(match["words"], comments=True) for match in COMMAND.finditer(text)]
        if files:
            found[title] = Section(title, files, commands)
    return found
