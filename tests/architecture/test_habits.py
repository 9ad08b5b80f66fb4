"""Habits of the code that a program can check."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "cooptim").rglob("*.py"))
SKIPPED = {".venv", ".git", "runs", "build", "dist", "__pycache__"}
TEXTS = sorted(
    path
    for path in ROOT.rglob("*")
    if path.is_file()
    and not SKIPPED & set(path.relative_to(ROOT).parts)
    and not any(part.endswith(("_cache", ".egg-info")) or part == ".hypothesis" for part in path.parts)
    and path.suffix in {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".cff", ".ipynb", ".json", ".csv", ".sh", ""}
)
LONGEST_FUNCTION, LONGEST_FILE = 80, 400
# Pieced together, so that this file does not hold them itself.
FORBIDDEN = ("/work" + "/", "/root" + "/", "/home" + "/", "index" + "-url", "find" + "-links")


def _name(path):
    return str(path.relative_to(ROOT))


def long_functions(source):
    """(name, lines) of every function that is longer than one screen and a half."""
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    sizes = ((node.name, node.end_lineno - node.lineno + 1) for node in nodes)
    return [(name, lines) for name, lines in sizes if lines > LONGEST_FUNCTION]


def forbidden_calls(source):
    """Names of pickle, eval, exec, and what runs code from data."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [
                name for name in modules if name.split(".")[0] in {"pickle", "cloudpickle", "dill", "marshal", "shelve"}
            ]
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"eval", "exec", "compile"}
        ):
            found.append(node.func.id)
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and getattr(node.value, "value", True):
            found.append("allow_pickle")
    return found


def global_state_at_import(source):
    """Uses of jax.config, os.environ and the like in statements that run when the module is imported."""
    found = []

    def visit(node):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for outer in (*getattr(node, "decorator_list", ()), *node.args.defaults, *node.args.kw_defaults):
                if outer is not None:
                    visit(outer)
            return
        text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if text in {"jax.config", "os.environ", "warnings.filterwarnings", "warnings.simplefilter", "np.random.seed"}:
            found.append(text)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(source))
    return found


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_a_module_keeps_the_habits(path):
    source = path.read_text()
    assert source.count("\n") <= LONGEST_FILE
    assert long_functions(source) == []
    assert forbidden_calls(source) == []
    assert global_state_at_import(source) == []
    # Only the program may change what its process does; a library may not.
    if path.parts[len(ROOT.parts) + 1] != "cli":
        assert not re.search(r"jax\.config\.update|os\.environ", source)


def test_broken_habits_are_found():
    assert long_functions("def f():\n" + "    x = 1\n" * 80) == [("f", 81)]
    assert forbidden_calls("import pickle\neval('1')\nnp.load(f, allow_pickle=True)") == [
        "pickle",
        "eval",
        "allow_pickle",
    ]
    assert global_state_at_import("import os\nx = os.environ['A']\ndef f():\n    os.environ['B']") == ["os.environ"]


def test_no_file_names_a_machine_path_or_a_registry():
    found = [
        f"{_name(path)}: {word}"
        for path in TEXTS
        for word in FORBIDDEN
        if word in path.read_text(encoding="utf-8", errors="ignore")
    ]
    assert found == []


def test_importing_the_package_changes_no_configuration_and_loads_no_jax():
    program = (
        "import os, sys\n"
        "before = dict(os.environ)\n"
        "import cooptim\n"
        "assert 'jax' not in sys.modules, 'jax loaded'\n"
        "import jax\n"
        "plain = dict(jax.config.values)\n"
        "import importlib, pkgutil, warnings, logging\n"
        "filters = list(warnings.filters)\n"
        "for module in pkgutil.walk_packages(cooptim.__path__, 'cooptim.'):\n"
        "    if '__main__' not in module.name:\n"
        "        importlib.import_module(module.name)\n"
        "changed = {k for k in plain if plain[k] != jax.config.values[k]}\n"
        "assert not changed, changed\n"
        "assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "readme"}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"README.md block {number}", "exec"), namespace)
    result, costs = namespace["result"], namespace["costs"]
    assert len(blocks) == 2 and (tmp_path / "runs" / "readme" / "result.json").is_file()
    assert 0 < result.bound_pj < float(result.designs["final"].report.total_energy_pj)
    assert 0 < float(costs.total_energy_pj) < float("inf")
