"""Which run a directory of checkpoints belongs to, so that `resume` never goes on with another."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import tempfile
import zlib
from typing import Any

import jax
import numpy as np

from cooptim.data import Dataset
from cooptim.descent.checkpoint import CheckpointError, leaf_data
from cooptim.descent.plan import Plan
from cooptim.descent.result import Budget
from cooptim.hardware.machine import Machine
from cooptim.network.trace import Network

FILE = "run.json"
_NAMED = 4  # differences that a message names


def versions() -> dict[str, str]:
    """Versions of what computes the numbers."""
    names = ("cooptim", "jax", "jaxlib", "flax", "optax", "numpy")
    return {"python": platform.python_version()} | {name: _version(name) for name in names}


def _version(name: str) -> str:
    """Of an installed package; a copy that is run from its folder has none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def fingerprint(
    network: Network, machine: Machine, data: Dataset, budget: Budget, plan: Plan, seed: int
) -> dict[str, Any]:
    """All that decides what a run computes, as plain JSON: numbers and names, and checksums of what is large."""
    layers = [f"{layer.name} {layer.kind} {tuple(layer.bounds)}" for layer in network.workload.layers]
    arrays = (data.x_train, data.y_train, data.x_val, data.y_val, data.x_test, data.y_test)
    return {
        "seed": seed,
        "plan": {name: value for name, value in dataclasses.asdict(plan).items() if name != "save_seconds"},
        "budget": dataclasses.asdict(budget),
        "machine": {"name": machine.name, "numbers": _digest(machine)},
        "workload": {"name": network.workload.name, "layers": layers},
        "parameters": _digest((network.params, network.state)),
        "data": {
            "name": data.name,
            "content": [f"{list(a.shape)} {_crc(a):08x}" for a in arrays],
            "streamed": data.stream is not None,
        },
        "versions": versions(),
    }


def claim(directory: str | os.PathLike[str], mine: dict[str, Any], *, resume: bool) -> None:
    """Writes `mine` into a directory of checkpoints; on `resume` compares with what is there instead.

    Raises CheckpointError that names what differs, or when the file cannot be read or written.
    """
    path = pathlib.Path(directory) / FILE
    mine = json.loads(json.dumps(mine))
    if resume and path.exists():
        _require_same(path, mine)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            json.dump(mine, file, indent=1)
        os.replace(file.name, path)
    except OSError as error:
        raise CheckpointError(
            f"checkpoints {path.parent}: cannot be written ({error.strerror or error}); free space or choose another "
            "directory with --out"
        ) from None


def _require_same(path: pathlib.Path, mine: dict[str, Any]) -> None:
    try:
        theirs = _flat(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: unreadable ({error}); start without --resume") from None
    own = _flat(mine)
    odd = [name for name in sorted(own | theirs) if own.get(name) != theirs.get(name)]
    if odd:
        said = "; ".join(
            f"{name} {_short(theirs.get(name))} there, {_short(own.get(name))} here" for name in odd[:_NAMED]
        )
        more = f" and {len(odd) - _NAMED} more" if len(odd) > _NAMED else ""
        raise CheckpointError(
            f"checkpoints {path.parent}: of another run: {said}{more}; resume with what the run was started with, or "
            "start without --resume"
        )


def _flat(tree: Any, name: str = "") -> dict[str, Any]:
    """Leaves of nested dictionaries and lists by their dotted path."""
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        found: dict[str, Any] = {}
        for key, value in items:
            found |= _flat(value, f"{name}.{key}" if name else str(key))
        return found
    return {name: tree}


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _crc(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data.cast("B"))


def _digest(tree: Any) -> str:
    """Checksum of a pytree: its paths, and shape, type and numbers of its leaves."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        data = None if isinstance(leaf, jax.ShapeDtypeStruct) else leaf_data(leaf)
        kind = (leaf.shape, leaf.dtype) if data is None else (data.shape, data.dtype)
        total.update(f"{jax.tree_util.keystr(path)} {kind}".encode())
        total.update(b"" if data is None else np.ascontiguousarray(data).tobytes())
    return total.hexdigest()[:16]
