"""What the package reads beside its modules goes into the wheel, and is all there."""

import fnmatch
import importlib.resources
import pathlib
import tomllib

import pytest

from cooptim.hardware.hierarchy_file import hierarchy_names, load_hierarchy
from cooptim.hardware.load import load_machine
from cooptim.workload import zoo

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_every_data_file_of_the_package_is_named_for_the_wheel():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["cooptim"]
    files = [path.relative_to(ROOT / "cooptim") for path in (ROOT / "cooptim").rglob("*") if path.is_file()]
    data = [path.as_posix() for path in files if path.suffix not in (".py", ".pyc")]
    assert data and [name for name in data if not any(fnmatch.fnmatch(name, p) for p in patterns)] == []
    assert [p for p in patterns if not any(fnmatch.fnmatch(name, p) for name in data)] == []


@pytest.mark.parametrize(
    ("package", "folder", "load"),
    [
        ("cooptim.hardware", "hierarchies", load_hierarchy),
        ("cooptim.hardware", "machines", load_machine),
        ("cooptim.workload", "networks", zoo.network),
    ],
)
def test_every_resource_loads_by_its_name(package, folder, load):
    entries = [entry.name for entry in (importlib.resources.files(package) / folder).iterdir()]
    names = [name.rpartition(".")[0] for name in entries if name != "index.csv"]
    assert names and [name for name in names if load(name).name != name] == []
    if folder == "hierarchies":
        assert sorted(names) == list(hierarchy_names())
    if folder == "networks":
        assert sorted(names) == sorted(zoo.names())
