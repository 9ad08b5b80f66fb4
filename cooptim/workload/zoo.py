"""Published networks by name, as workloads; tables and sources in `networks/`.

The tables are computed from the architecture definitions that `source` names (dimensions only, no weights). They list
the layers that multiply and accumulate; pooling, additions and activations have no rows. AlexNet is there with its two
groups, without them and as the later single tower; ResNet-50 with the stride in its 3x3 (v1.5) or 1x1 convolutions.
"""

import csv
import importlib.resources
from importlib.resources.abc import Traversable

from cooptim.workload.layer import Workload
from cooptim.workload.table import TableError, read_csv, workload

__all__ = ["TableError", "names", "network", "read_csv", "source"]


def names() -> tuple[str, ...]:
    """Names of the networks that come with the package."""
    return tuple(_index())


def network(name: str) -> Workload:
    """The network of this name; layers, inputs and padding as `read_csv` says.

    Raises ValueError that lists the names for any other.
    """
    _known(name)
    entry = _folder() / f"{name}.csv"
    return workload(name, f"network {name}", entry.read_text(encoding="utf-8"))


def source(name: str) -> str:
    """Where the dimensions of a network were published, and against what its totals were checked.

    Raises ValueError that lists the names for any other.
    """
    row = _known(name)
    return f"{row['source']}; checked: {row['checked']}"


def _folder() -> Traversable:
    return importlib.resources.files("cooptim.workload") / "networks"


def _index() -> dict[str, dict[str, str]]:
    """Rows of the index by network: layers, MACs, params, weights, source, checked."""
    content = (_folder() / "index.csv").read_text(encoding="utf-8")
    return {row["network"]: row for row in csv.DictReader(content.splitlines())}


def _known(name: str) -> dict[str, str]:
    index = _index()
    if name not in index:
        raise ValueError(
            f"network '{name}' is not known; legal are {', '.join(index)}; for another give a CSV file of its layers "
            "to zoo.read_csv"
        )
    return index[name]
