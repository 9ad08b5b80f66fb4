"""Reads an exported integer network: integer.json says what runs, integer.npz holds the integers; numpy only.

The reader is strict: unknown and missing fields, arrays of another type or shape, references to later nodes and numbers
that are not finite are refused by name. Nothing is unpickled and nothing in a file is ever called.
"""

import json
import math
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from cooptim.integer.arithmetic import MAX_SHIFT
from cooptim.integer.program import OPS, SHARED, IntegerLayer, IntegerNetwork, Node, Output

SCHEMA = "cooptim-integer/1"
JSON_NAME, ARRAYS_NAME = "integer.json", "integer.npz"
KINDS = {"weights": "int32", "labels": "uint8", "table": "int32"}  # all other arrays are int64
_MOST_VALUES = 256  # in a table, so that a label is a byte
_WIDEST_VALUE = 16  # of a table [bit], sign included
_LAYER = {
    "name": str, "node": int, "weight_bits": int, "input_bits": int, "input_signed": bool, "weight_step": float,
    "input_step": float, "accumulator_bits": int,
}  # fmt: skip
_TOP = {"schema_version", "name", "input_shape", "multiplier_bits", "layers", "nodes", "outputs", "head", "notes"}


def array_key(node: int, name: str) -> str:
    """Key of one array in the .npz."""
    return f"{node}/{name}"


def load_integer(directory: str | os.PathLike[str]) -> IntegerNetwork:
    """The integer network in a folder that `cooptim export integer` wrote.

    Raises ValueError that names the file, the node or field, what was found and what is legal.
    """
    folder = pathlib.Path(directory)
    path = folder / JSON_NAME
    content = _read(path)
    who = str(path)
    _fields(who, content, _TOP)
    if content["schema_version"] != SCHEMA:
        raise ValueError(f"{who}: schema_version {content['schema_version']!r}; this version reads {SCHEMA!r}")
    arrays = _arrays(folder / ARRAYS_NAME)
    nodes = tuple(_node(f"{who}, node {i}", i, node, arrays) for i, node in enumerate(_list(who, content, "nodes")))
    if not nodes or nodes[0].op != "input" or any(node.op == "input" for node in nodes[1:]):
        raise ValueError(f"{who}: node 0, and no other, is the input; export again")
    if arrays:
        raise ValueError(f"{folder / ARRAYS_NAME}: {sorted(arrays)[0]} belongs to no node; export again")
    outputs = [_output(f"{who}, outputs", out, len(nodes)) for out in _list(who, content, "outputs")]
    layers = [_layer(f"{who}, layers", layer, nodes) for layer in _list(who, content, "layers")]
    shape, head, bits = content["input_shape"], content["head"], content["multiplier_bits"]
    if not _ints(shape) or shape.count(-1) != 1 or any(n < 1 for n in shape if n != -1):
        raise ValueError(f"{who}: input_shape is {shape!r}; write whole numbers, the batch axis as -1")
    if not isinstance(head, list) or not all(isinstance(name, str) for name in head):
        raise ValueError(f"{who}: head is {head!r}; write a list of names")
    if type(bits) is not int or not isinstance(content["name"], str) or not outputs:
        raise ValueError(f"{who}: name, multiplier_bits and at least one output are needed; export again")
    return IntegerNetwork(content["name"], tuple(shape), nodes, tuple(layers), tuple(outputs), bits, tuple(head))


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}); give a folder that `cooptim export integer` wrote"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no integer network ({error}); export again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a {type(content).__name__}, not an object; export again")
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _constant(text: str) -> Any:
    raise ValueError(f"the number {text}; legal: finite numbers")


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: no arrays of an integer network ({error}); export again") from None


def _fields(who: str, content: Any, wanted: Any) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{who}: {content!r} is no object; export again")
    missing, unknown = sorted(set(wanted) - set(content)), sorted(set(content) - set(wanted))
    if missing or unknown:
        parts = [f"{', '.join(missing)} missing"] if missing else []
        parts += [f"unknown field {', '.join(unknown)}"] if unknown else []
        raise ValueError(f"{who}: {' and '.join(parts)}; legal: {', '.join(sorted(wanted))}")


def _list(who: str, content: Mapping[str, Any], name: str) -> list[Any]:
    if not isinstance(content[name], list):
        raise ValueError(f"{who}: {name} is {content[name]!r}; write a list")
    return content[name]


def _ints(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int for n in value)


def _legal(kind: str, value: Any) -> bool:
    if kind == "int":
        return type(value) is int
    if kind == "ints":
        return _ints(value)
    if kind == "table":
        return isinstance(value, list) and all(_ints(row) for row in value)
    return type(value) in (int, float) and math.isfinite(value)


def _node(who: str, position: int, content: Any, arrays: dict[str, np.ndarray]) -> Node:
    """One node, its arrays taken out of `arrays`."""
    _fields(who, content, ("op", "inputs", "attributes", "arrays", "bound", "layer"))
    op = OPS.get(content["op"]) if isinstance(content["op"], str) else None
    if op is None:
        raise ValueError(f"{who}: op is {content['op']!r}; legal: {', '.join(OPS)}")
    inputs, count = content["inputs"], max(op.inputs, 0)
    if not _ints(inputs) or any(not 0 <= i < position for i in inputs):
        raise ValueError(f"{who}: inputs are {inputs!r}; write positions of earlier nodes, 0..{position - 1}")
    if (op.inputs != 0 and len(inputs) != count) or (op.inputs == 0 and not inputs):
        raise ValueError(f"{who}: {content['op']} takes {count or 'one or more'} inputs, found {len(inputs)}")
    _fields(f"{who}, attributes", content["attributes"], op.attributes)
    for name, kind in op.attributes.items():
        if not _legal(kind, content["attributes"][name]):
            raise ValueError(f"{who}: {name} is {content['attributes'][name]!r}; write {kind}")
    names = _array_names(op.arrays, content["arrays"])
    _fields(f"{who}, arrays", content["arrays"], names)
    found = {name: _array(who, position, name, content["arrays"][name], arrays) for name in names}
    if "table" in found:
        _require_table(who, found["labels"], found["table"])
    bound, layer = content["bound"], content["layer"]
    if type(bound) is not int or not 0 <= bound < 2**62 or not isinstance(layer, str):
        raise ValueError(f"{who}: bound is {bound!r}, layer {layer!r}; write a whole number below 2^62 and a name")
    if "shift" in found and not ((found["shift"] >= 0) & (found["shift"] <= MAX_SHIFT)).all():
        raise ValueError(f"{who}: a shift is outside 0..{MAX_SHIFT}; export again")
    return Node(content["op"], tuple(inputs), content["attributes"], found, bound, layer)


def _array_names(own: tuple[str, ...], content: Any) -> tuple[str, ...]:
    """Arrays of a node: its operation's own, or labels and their table in the place of weights."""
    if "weights" not in own or not isinstance(content, dict) or not set(SHARED) & set(content):
        return own
    return tuple(name for name in own if name != "weights") + SHARED


def _require_table(who: str, labels: np.ndarray, table: np.ndarray) -> None:
    """Raises ValueError for a table that is none, and for labels beyond it."""
    if table.ndim != 1 or not 2 <= table.size <= _MOST_VALUES or table.size & (table.size - 1):
        raise ValueError(
            f"{who}: its table has shape {list(table.shape)}; legal are 2, 4, 8 ... {_MOST_VALUES} values in one row; "
            "export again"
        )
    if not (table == 0).any():
        raise ValueError(f"{who}: its table has no 0, which pruned weights take; export again")
    if labels.size and int(labels.max()) >= table.size:
        raise ValueError(
            f"{who}: a label of {int(labels.max())}, and its table has {table.size} values, 0 to {table.size - 1}; "
            "keep both files of one export together"
        )


def _array(who: str, position: int, name: str, shape: Any, arrays: dict[str, np.ndarray]) -> np.ndarray:
    key, kind = array_key(position, name), KINDS.get(name, "int64")
    if key not in arrays:
        raise ValueError(f"{who}: {ARRAYS_NAME} has no {key}; keep both files of one export together")
    array = arrays.pop(key)
    if array.dtype.name != kind or list(array.shape) != shape:
        raise ValueError(
            f"{who}: {key} is {array.dtype.name}{list(array.shape)}, the description says {kind}{shape}; keep both "
            "files of one export together"
        )
    return array


def _output(who: str, content: Any, nodes: int) -> Output:
    _fields(who, content, ("node", "step"))
    if type(content["node"]) is not int or not 0 < content["node"] < nodes or not _legal("float", content["step"]):
        raise ValueError(f"{who}: {content!r}; write the position of a node, 1..{nodes - 1}, and a finite step")
    return Output(content["node"], float(content["step"]))


def _layer(who: str, content: Any, nodes: tuple[Node, ...]) -> IntegerLayer:
    table = {"table_bits": int} if isinstance(content, dict) and "table_bits" in content else {}  # where it has one
    _fields(who, content, _LAYER | table)
    for name, kind in (_LAYER | table).items():
        if type(content[name]) is not kind and not (kind is float and type(content[name]) is int):
            raise ValueError(f"{who}: {name} is {content[name]!r}; write {kind.__name__}")
    layer = IntegerLayer(**content)
    if not 0 < layer.node < len(nodes) or nodes[layer.node].op not in ("conv", "dot"):
        raise ValueError(f"{who}: {layer.name} stands at node {layer.node}, which multiplies nothing; export again")
    arrays = nodes[layer.node].arrays
    what, stored, bits = "weight", arrays.get("weights"), layer.weight_bits
    if stored is None:
        _require_labels(f"{who}: {layer.name}", layer, arrays["table"])
        what, stored, bits = "value", arrays["table"], layer.table_bits
    elif layer.table_bits:
        raise ValueError(f"{who}: {layer.name} has table_bits {layer.table_bits} and no table; export again")
    words, half = stored.astype(np.int64), 2 ** (bits - 1)
    least, most = (-half, half - 1) if half > 1 else (-1, 1)  # two's complement; one bit is a sign
    odd = words[(words < least) | (words > most)]
    if odd.size:
        raise ValueError(f"{who}: {layer.name} has a {what} of {int(odd[0])} in {bits} b, which hold {least} to {most}")
    return layer


def _require_labels(who: str, layer: IntegerLayer, table: np.ndarray) -> None:
    """Raises ValueError unless the widths of labels and values are those of the table."""
    if layer.weight_bits < 1 or table.size != 2**layer.weight_bits:
        raise ValueError(
            f"{who} has labels of {layer.weight_bits} b and a table of {table.size} values; a table has one for each "
            "label: export again"
        )
    if not 2 <= layer.table_bits <= _WIDEST_VALUE:
        raise ValueError(
            f"{who} has table_bits {layer.table_bits}; legal for the values of its table are 2 to {_WIDEST_VALUE}: "
            "export again"
        )
