"""Policies as tests: who may import whom, what the command line may import, how large a room may be."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mmexp"
PARTS = ("encoder", "resolution", "feature_layers", "fusion", "projector", "reduction", "llm", "video")
"""Folders of mmexp/model that are config groups."""
ORDER = (
    ("errors", "interfaces", "files"),
    ("instantiate", "hub"),
    ("config",),
    ("data",),
    ("model",),
    ("training", "evaluation", "interchange"),
    ("stages",),
    ("statistics",),
    ("planning",),
    ("sweeping",),
    ("report",),
    ("lab",),
    ("cli",),
)
"""From the ground up: a part imports only what stands in an earlier line."""
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
HEAVY = ("torch", "lightning", "transformers", "timm", "pandas", "plotly")
MAX_LINES = 400
MAX_FUNCTION_LINES = 65


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "_config" not in path.parts)


def imports(path: Path) -> Iterator[str]:
    """The mmexp modules that a file imports, wherever in it, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name for name in names if name.startswith("mmexp."))


def module_name(path: Path) -> str:
    return ".".join(("mmexp", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def import_graph() -> dict[str, set[str]]:
    """Module -> the mmexp modules that it imports."""
    known = {module_name(path): path for path in modules()}
    return {name: (set(imports(path)) & known.keys()) - {name} for name, path in known.items()}


def test_a_part_imports_only_what_comes_before_it() -> None:
    wrong = []
    for name, imported in import_graph().items():
        part = name.split(".")[1] if "." in name else ""
        for other in imported if part in RANK else ():
            ground = other.split(".")[1]
            if ground != part and (ground not in RANK or RANK[ground] >= RANK[part]):
                wrong.append(f"{name} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_through_others() -> None:
    graph = import_graph()
    circles = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = path[path.index(name) :]
            turn = circle.index(min(circle))
            circles.add(" -> ".join((*circle[turn:], *circle[:turn])))
            return
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.add(name)

    done: set[str] = set()
    for name in sorted(graph):
        visit(name, ())
    assert not circles, "\n".join(sorted(circles))


def test_parts_of_the_model_do_not_import_each_other() -> None:
    wrong = []
    for name, imported in import_graph().items():
        part = name.split(".")[2] if name.startswith("mmexp.model.") else ""
        for other in imported if part in PARTS else ():
            if other.startswith("mmexp.model.") and other.split(".")[2] not in (part, "maps"):
                wrong.append(f"{name} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_the_package_has_few_modules_of_its_own() -> None:
    own = [path.name for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]
    assert len(own) <= 6, own


@pytest.mark.parametrize("arguments", [[], ["--help"], ["list"], ["list", "projector"], ["run", "--help"]])
def test_help_and_lists_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from mmexp.cli.main import main\n"
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


def test_every_place_says_what_it_expects_of_a_config() -> None:
    """A ``_target_`` is only as safe as the kind of class that its place asks for."""
    calls = 0
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "instantiate":
                calls += 1
                keywords = {keyword.arg for keyword in node.keywords}
                assert "expect" in keywords, f"{path}: {node.lineno}"
    assert calls >= 20


def test_weights_are_never_unpickled() -> None:
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert options.get("weights_only") == "True", f"{path}: {node.lineno}"
            if isinstance(node, ast.Call):
                assert "trust_remote_code" not in {keyword.arg for keyword in node.keywords}, path
        assert "import pickle" not in path.read_text(), path
