"""integer.json and integer.npz: an integer network for any runtime that multiplies integers."""

import dataclasses
import io
import json
import os
from typing import Any

import numpy as np

from cooptim.export.atomic import require_writable, write_bytes
from cooptim.integer.file import ARRAYS_NAME, JSON_NAME, SCHEMA, array_key
from cooptim.integer.program import IntegerLayer, IntegerNetwork

NOTES = (
    "Every node is one operation on the results of earlier nodes; ops are listed in cooptim/integer/program.py. "
    "quantize: clip(round(float32(x) * float32(scale)), low, high). requantize: clip((x * multiplier + bias) / "
    "2^shift, low, high). Both round ties to even. An output stands for step times its integer. Axes count the "
    "batch axis, which shapes write as -1. Arrays of node n are n/name in integer.npz. Weights with a table are "
    "table[labels], labels of weight_bits (a byte each in the file), values of table_bits, sign included."
)


def _layer(layer: IntegerLayer) -> dict[str, Any]:
    """Its fields; `table_bits` only where it has a table."""
    found = dataclasses.asdict(layer)
    return found if layer.table_bits else {name: value for name, value in found.items() if name != "table_bits"}


def save_integer(directory: str | os.PathLike[str], network: IntegerNetwork) -> None:
    """Writes an integer network into a folder; `cooptim.integer.load_integer` reads it back, equal to the last integer.

    Raises ValueError when the folder cannot be written.
    """
    folder = require_writable(directory)
    nodes: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for i, node in enumerate(network.nodes):
        nodes.append(
            {
                "op": node.op,
                "layer": node.layer,
                "inputs": list(node.inputs),
                "attributes": dict(node.attributes),
                "arrays": {name: list(array.shape) for name, array in node.arrays.items()},
                "bound": node.bound,
            }
        )
        arrays |= {array_key(i, name): array for name, array in node.arrays.items()}
    content = {
        "schema_version": SCHEMA,
        "notes": NOTES,
        "name": network.name,
        "input_shape": list(network.input_shape),
        "multiplier_bits": network.multiplier_bits,
        "layers": [_layer(layer) for layer in network.layers],
        "outputs": [dataclasses.asdict(output) for output in network.outputs],
        "head": list(network.head),
        "nodes": nodes,
    }
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    write_bytes(folder / ARRAYS_NAME, file.getvalue())
    # Last, so that a description says that its arrays are there.
    write_bytes(folder / JSON_NAME, json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")
