"""Policies as tests: who may import whom, what the command line may import, how large a room may be."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mmexp"
FOUNDATION = ("instantiate", "config", "hub", "maps")
PARTS = ("encoder", "resolution", "feature_layers", "fusion", "projector", "reduction", "llm", "video")
ORDER = (
    ("errors", "interfaces"),
    FOUNDATION,
    ("data", *PARTS),
    ("model",),
    ("training",),
    ("recipe",),
    ("evaluation",),
    ("planning",),
    ("sweeping",),
    ("report",),
    ("importing",),
    ("lab",),
)
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
HEAVY = ("torch", "lightning", "transformers", "timm", "pandas", "plotly")
MAX_LINES = 400
MAX_FUNCTION_LINES = 65


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "_config" not in path.parts)


def imports(path: Path) -> Iterator[str]:
    """Second components of the mmexp modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name.split(".")[1] for name in names if name.startswith("mmexp."))


def owner(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_a_part_imports_only_what_comes_before_it() -> None:
    wrong = []
    for path in modules():
        name = owner(path)
        if name not in RANK:  # entry points import anything but each other's internals
            continue
        for imported in set(imports(path)) - {name}:
            if imported == "worker" and name == "sweeping":  # the same part; its module is named on command lines
                continue
            if imported not in RANK or RANK[imported] >= RANK[name]:
                wrong.append(f"{path.relative_to(ROOT)} imports mmexp.{imported}")
    assert not wrong, "\n".join(wrong)


def test_report_and_planning_do_not_train() -> None:
    for part in ("report", "config", "sweeping"):
        for path in (PACKAGE / part).rglob("*.py"):
            assert not {"training", "cli"} & set(imports(path)), path


def test_nobody_imports_the_command_line() -> None:
    for path in modules():
        if path.parent != PACKAGE:
            assert "cli" not in set(imports(path)), path


@pytest.mark.parametrize("arguments", [[], ["--help"], ["list"], ["list", "projector"], ["run", "--help"]])
def test_help_and_lists_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from mmexp.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"


def test_files_are_one_room_and_functions_fit_a_screen() -> None:
    for path in modules():
        text = path.read_text()
        assert text.count("\n") <= MAX_LINES, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= MAX_FUNCTION_LINES, f"{path}: {node.name} has {length} lines"


def test_no_configured_constructor_swallows_arguments() -> None:
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                assert node.args.kwarg is None, f"{path}: {node.lineno}"


def test_weights_are_never_unpickled() -> None:
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert options.get("weights_only") == "True", f"{path}: {node.lineno}"
            if isinstance(node, ast.Call):
                assert "trust_remote_code" not in {keyword.arg for keyword in node.keywords}, path
        assert "import pickle" not in path.read_text(), path
