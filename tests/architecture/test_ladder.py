"""Imports point down the ladder only; names of the rungs as in CONTRIBUTING."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "cooptim"
LADDER: tuple[tuple[str, ...], ...] = (
    ("units", "shapes", "compile", "data", "integer"),
    ("workload", "hardware", "relax"),
    ("mapping",),
    ("design", "network"),
    ("cost",),
    ("optimize", "descent"),
    ("validate", "export"),
    ("reporting",),
    ("cli",),
    ("__init__", "__main__"),
)
RANK = {name: rank for rank, rung in enumerate(LADDER) for name in rung}
MODULES = sorted(PACKAGE.rglob("*.py"))


def _rung(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(tree, package):
    """(line, absolute module) of every import of the package, wherever in the file it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield node.lineno, module
            if module == "cooptim":
                yield from ((node.lineno, f"cooptim.{alias.name}") for alias in node.names)


def violations(path, source):
    """'line: what it imports' for each import that points up or sideways."""
    here = _rung(path)
    package = list(path.relative_to(ROOT).parent.parts)
    found = []
    for line, module in _imports(ast.parse(source), package):
        parts = module.split(".")
        if parts[0] != "cooptim" or len(parts) < 2 or parts[1] == here:
            continue
        if parts[1] not in RANK or RANK[parts[1]] >= RANK[here]:
            found.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    return found


def test_every_module_stands_on_a_rung():
    assert sorted({_rung(path) for path in MODULES} - set(RANK)) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down_the_ladder(path):
    assert violations(path, path.read_text()) == []


def test_an_import_that_points_up_or_sideways_is_found():
    path = PACKAGE / "cost" / "energy.py"
    assert len(violations(path, "import cooptim.cli")) == 1
    assert len(violations(path, "def f():\n    from cooptim.descent.run import optimize")) == 1
    assert len(violations(path, "from ..export import save_design")) == 1
    assert len(violations(path, "from cooptim import validate")) == 1
    assert len(violations(PACKAGE / "hardware" / "load.py", "from cooptim.workload import Layer")) == 1
    assert violations(path, "from cooptim.cost.report import CostReport\nimport cooptim.units") == []
