"""Weights as .npz: one plain array a leaf under its path, and their dtypes; read without pickle."""

import io
import json
import os
import pathlib
import zipfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cooptim.descent.checkpoint import leaf_data, leaf_like
from cooptim.export.atomic import write_bytes

_DTYPES = "__dtypes__"


def save_weights(path: str | os.PathLike[str], params: Any, state: Any) -> None:
    """Writes both trees; keys are 'params/conv1/kernel', 'state/bn/mean' and so on."""
    leaves = _flat((params, state))
    arrays = {name: leaf_data(leaf) for name, leaf in leaves.items()}
    dtypes = {name: array.dtype.name for name, array in arrays.items()}
    # An .npz holds numpy's own dtypes only: others, such as bfloat16, travel as their bytes.
    plain: dict[str, Any] = {
        name: array if array.dtype.isbuiltin == 1 else _bytes(array) for name, array in arrays.items()
    }
    file = io.BytesIO()
    np.savez(file, **plain | {_DTYPES: np.asarray(json.dumps(dtypes))})
    write_bytes(pathlib.Path(path), file.getvalue())


def load_weights(path: str | os.PathLike[str], like: tuple[Any, Any], *, resized: bool = False) -> tuple[Any, Any]:
    """(params, state) from a file, in the structure of `like` = (params, state); leaves equal to the last bit.

    Args:
      resized: sizes of axes may differ from those of `like`, as in a network that has lost channels.

    Raises ValueError, naming the first odd leaf, when the file is of another network or cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            dtypes = json.loads(str(stored[_DTYPES]))
            arrays = {name: stored[name] for name in dtypes}
    except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"weights {path}: no weights file ({error}); write it with save_weights") from None
    leaves = _flat(like)
    odd = sorted(set(leaves) ^ set(arrays))
    if odd:
        where = "the file" if odd[0] in arrays else "the network"
        raise ValueError(f"weights {path}: {odd[0]} is only in {where}; load them into the network they came from")
    back = []
    for name, leaf in leaves.items():
        kind, wanted = jnp.dtype(dtypes[name]), leaf_data(leaf)
        array = arrays[name] if arrays[name].dtype == kind else arrays[name].view(kind)
        fits = array.ndim == wanted.ndim if resized else array.shape == wanted.shape
        if not fits or array.dtype != wanted.dtype:
            raise ValueError(
                f"weights {path}: {name} is {array.dtype.name}{list(array.shape)}, the network has "
                f"{wanted.dtype.name}{list(wanted.shape)}; load them into the network they were saved from"
            )
        back.append(leaf_like(leaf, array))
    return jax.tree.unflatten(jax.tree.structure(like), back)


def _flat(trees: tuple[Any, Any]) -> dict[str, Any]:
    """Leaves of (params, state) by path."""
    return flat_leaves("params", trees[0]) | flat_leaves("state", trees[1])


def flat_leaves(prefix: str, tree: Any) -> dict[str, Any]:
    """Leaves by path, such as 'params/conv1/kernel', in flattening order; the prefix alone for a lone array."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        inner = jax.tree_util.keystr(path, simple=True, separator="/")
        found[f"{prefix}/{inner}" if inner else prefix] = leaf
    return found


def _bytes(array: np.ndarray) -> np.ndarray:
    """The same memory as unsigned integers of the same width."""
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")
