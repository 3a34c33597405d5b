"""Imports run one way: a room may use those below it, and no module is in a cycle."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    ("version", "scale", "device", "files", "processes", "streams", "plotting"),
    ("data",),
    ("models",),
    ("classifiers",),
    ("game",),
    ("training",),
    ("metrics",),
    ("recipes",),
    ("study",),
    ("commands",),
)
"""From the ground up: a room imports from those above it in this list."""
LAYERS = ("gankit", "toy", "figures", "book")


def modules(package: str) -> dict[str, Path]:
    """Dotted name -> file."""
    found = {}
    for path in (ROOT / package).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> set[str]:
    """Dotted names that a module imports when it is loaded or run, those for type checkers left out."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text("utf-8")))
    return found


def edges(package: str) -> dict[str, set[str]]:
    """Module -> modules of the same package that it imports."""
    known = modules(package)

    def resolve(name: str) -> str | None:
        while name and name not in known:
            name = name.rpartition(".")[0]
        return name if name != package else None

    return {
        name: {target for found in imports(path) if (target := resolve(found)) and target != name}
        for name, path in known.items()
        if name != package
    }


def room(module: str) -> int:
    name = module.split(".")[1]
    return next((i for i, names in enumerate(ROOMS) if name in names), -1)


def test_every_module_has_a_room() -> None:
    assert [m for m in edges("gankit") if room(m) < 0 and m != "gankit.__main__"] == []


def test_a_room_imports_from_the_rooms_below_it() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in edges("gankit").items()
        if module != "gankit.__main__"
        for target in targets
        if room(target) > room(module)
    ]
    assert wrong == []


@pytest.mark.parametrize("package", ["gankit", "toy", "figures"])
def test_no_module_is_in_a_cycle(package: str) -> None:
    # A package's own page names its members; members that name the package mean what it exports.
    known = edges(package)
    graph = {m: {t for t in targets if not m.startswith(f"{t}.")} for m, targets in known.items()}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the cycle


def test_layers_import_one_way() -> None:
    for i, package in enumerate(LAYERS[:-1]):
        for path in modules(package).values():
            for name in imports(path):
                assert name.split(".")[0] not in LAYERS[i + 1 :], f"{path} imports {name}"
