"""design.json: a legal design by layer name, readable and checked when it is read back."""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from cooptim.design.design import Design
from cooptim.design.legal import Fault, faults
from cooptim.design.space import DesignSpace
from cooptim.export.atomic import write_bytes
from cooptim.hardware.machine import Machine
from cooptim.mapping.frontier import tilings as all_tilings
from cooptim.mapping.tilings import STATIONARITIES, Tilings
from cooptim.network.stats import Stats, dense_stats
from cooptim.relax.method import PLAIN, Method, method_of
from cooptim.workload import Workload

SCHEMA = "cooptim-design/1"
_NUMBERS: tuple[str, ...] = (
    "weight_bits", "weight_step", "weight_range", "threshold", "input_bits", "input_step", "input_range",
    "supply_v", "freq_ghz",
)  # fmt: skip
_TILE: tuple[str, ...] = ("K", "C", "OY", "OX")
_FIELDS = frozenset({*_NUMBERS, "input_signed", "mode", "tile", "stationary"})
_MEASURED = ("weight_density", "input_density", "reach")
_METHOD: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(Method))
_NAMED = 5  # entries that a message names
_TABLES = ("weight_scale", "codebook")


def save_design(
    path: str | os.PathLike[str],
    workload: Workload,
    machine: Machine,
    design: Design,
    stats: Stats | None = None,
    *,
    tilings: Tilings | None = None,
) -> None:
    """Writes a legal design, with the densities it was priced at when `stats` is given.

    Raises ValueError when a number is not finite or the file cannot be written.
    """
    table = all_tilings(workload, machine) if tilings is None else tilings
    modes, rows = np.argmax(np.asarray(design.mode), axis=-1), np.argmax(np.asarray(design.tiling), axis=-1)
    layers: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(workload.names):
        *tile, stationary = (int(n) for n in table.factors[i, rows[i]])
        layers[name] = {field: float(getattr(design, field)[i]) for field in _NUMBERS}
        layers[name] |= {
            "input_signed": bool(design.input_signed[i]),
            "mode": machine.modes[int(modes[i])].name,
            "tile": dict(zip(_TILE, tile, strict=True)),
            "stationary": STATIONARITIES[stationary],
        }
        layers[name] |= _said(design, i)
        if stats is not None:
            known = {field: getattr(stats, field) for field in _MEASURED}
            layers[name] |= {field: float(values[i]) for field, values in known.items() if values is not None}
    content = {
        "schema": SCHEMA,
        "workload": workload.name,
        "machine": machine.name,
        "buffer_bits": float(design.buffer_bits),
        "layers": layers,
    }
    if design.exit_margin is not None:
        content["exit_margin"] = dict(zip(workload.exits, map(float, design.exit_margin), strict=True))
    try:
        text = json.dumps(content, indent=1, allow_nan=False)
    except ValueError:
        raise ValueError(f"design of {workload.name}: a number is NaN or infinite; save legal designs only") from None
    write_bytes(pathlib.Path(path), text.encode() + b"\n")


def load_design(
    path: str | os.PathLike[str], workload: Workload, machine: Machine, *, tilings: Tilings | None = None
) -> Design:
    """The design in a file, checked against workload and machine.

    Raises ValueError that names the file, the layer, what was found and what is legal.
    """
    table = all_tilings(workload, machine) if tilings is None else tilings
    content = _read(path, workload)
    layers = [content["layers"][name] for name in workload.names]
    for name, layer in zip(workload.names, layers, strict=True):
        _check_layer(f"{path}, layer {name}", layer)
    mode_names = [mode.name for mode in machine.modes]
    modes = np.zeros((len(layers), len(mode_names)))
    shares = np.zeros((len(layers), table.rows))
    for i, (name, layer) in enumerate(zip(workload.names, layers, strict=True)):
        who = f"{path}, layer {name}"
        if layer["mode"] not in mode_names:
            raise ValueError(
                f"{who}: mode {layer['mode']!r} is not one of {machine.name}; use {', '.join(mode_names)}"
                f"{_made_for(content, machine)}"
            )
        modes[i, mode_names.index(layer["mode"])] = 1.0
        shares[i, _row(who, layer, table, i)] = 1.0
    buffer_bits: Any = content.get("buffer_bits")
    if not _is_number(buffer_bits) or buffer_bits <= 0:
        raise ValueError(f"{path}: buffer_bits is {buffer_bits!r}; write a positive number of bits")
    methods = tuple(_method(f"{path}, layer {name}", layer) for name, layer in zip(workload.names, layers, strict=True))
    numbers: Any = {field: jnp.asarray([float(layer[field]) for layer in layers]) for field in _NUMBERS}
    design = Design(
        input_signed=tuple(layer["input_signed"] for layer in layers),
        mode=jnp.asarray(modes),
        tiling=jnp.asarray(shares),
        buffer_bits=jnp.asarray(float(buffer_bits)),
        exit_margin=_margins(path, content, workload),
        methods=() if all(method == PLAIN for method in methods) else methods,
        weight_scale=_tables(layers, "weight_scale"),
        codebook=_tables(layers, "codebook"),
        **numbers,
    )
    broken = faults(DesignSpace(workload, machine, table, design.input_signed, design.methods), design)
    if broken:
        more = f"; and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
        said = "; ".join(map(_said_of, broken[:_NAMED]))
        raise ValueError(f"{path}: not buildable on {machine.name}: {said}{more}{_made_for(content, machine)}")
    return design


def _made_for(content: Mapping[str, Any], machine: Machine) -> str:
    """The end of a message about a design that another machine was chosen for."""
    other = content.get("machine")
    return "" if other == machine.name else f" (the file is of machine {other!r}: give that one)"


def _said_of(fault: Fault) -> str:
    """The entry of the file, what it says and what is legal, and what to write instead."""
    place = f"layers.{fault.layer}.{fault.field}" if fault.layer else fault.field
    return f"{place}: {fault.found}: {fault.remedy}"


def _said(design: Design, layer: int) -> dict[str, Any]:
    """What a layer's method is and which tables it has, where it is not the default."""
    found: dict[str, Any] = {}
    method = method_of(design.methods, layer)
    if method != PLAIN:
        found["method"] = {
            name: getattr(method, name) for name in _METHOD if getattr(method, name) != getattr(PLAIN, name)
        }
    for field in _TABLES:
        table = getattr(design, field)
        if table is not None and np.size(table[layer]):
            found[field] = [float(number) for number in np.asarray(table[layer])]
    return found


def _method(who: str, layer: Mapping[str, Any]) -> Method:
    said = layer.get("method", {})
    if not isinstance(said, dict) or set(said) - set(_METHOD):
        raise ValueError(f"{who}: method is {said!r}; write an object with fields of {', '.join(_METHOD)}")
    pattern = said.get("pattern")
    kinds = {"weights": str, "inputs": str, "per_channel": bool, "pattern": list, "label_bits": int}
    odd = [name for name, value in said.items() if not isinstance(value, kinds[name])]
    if odd or (pattern is not None and [type(n) for n in pattern] != [int, int]):
        raise ValueError(
            f"{who}: method is {said!r}; write names of quantizers, true or false for per_channel, a pattern as "
            "[N, M], such as [2, 4], and label_bits as a whole number"
        )
    try:
        return Method(**said | ({} if pattern is None else {"pattern": (pattern[0], pattern[1])}))
    except ValueError as error:
        raise ValueError(f"{who}: {error}") from None


def _tables(layers: list[dict[str, Any]], field: str) -> tuple[Any, ...] | None:
    """One array a layer, size 0 where a layer has none; None where no layer has one."""
    if not any(field in layer for layer in layers):
        return None
    return tuple(jnp.asarray(layer.get(field, ()), float) for layer in layers)


def load_stats(path: str | os.PathLike[str], workload: Workload) -> Stats:
    """The densities stored with a design; 1 (no zeros) where none were stored."""
    content = _read(path, workload)
    dense = dense_stats(len(workload.layers))
    columns = []
    default = dense.weight_density
    for field in _MEASURED:
        if field == "reach" and not any(field in content["layers"][name] for name in workload.names):
            continue
        values = [content["layers"][name].get(field, 1.0) for name in workload.names]
        for name, value in zip(workload.names, values, strict=True):
            if not _is_number(value) or not 0.0 <= value <= 1.0:
                raise ValueError(f"{path}, layer {name}: {field} is {value!r}; write a share in 0..1")
        columns.append(jnp.asarray(values, default.dtype))
    return Stats(columns[0], columns[1], columns[2] if len(columns) == len(_MEASURED) else None)


def _margins(path: str | os.PathLike[str], content: dict[str, Any], workload: Workload) -> Any:
    """Margins of the early exits, by name of their heads; None where the file holds none."""
    if "exit_margin" not in content:
        return None
    found: Any = content["exit_margin"]
    right = isinstance(found, dict) and set(found) == set(workload.exits) and all(map(_is_number, found.values()))
    if not right:
        raise ValueError(
            f"{path}: exit_margin is {found!r}; write a finite log-odds for each of {', '.join(workload.exits) or 'no'}"
            f" exits of {workload.name}"
        )
    return jnp.asarray([float(found[name]) for name in workload.exits])


def _read(path: str | os.PathLike[str], workload: Workload) -> dict[str, Any]:
    """The file as a dictionary that has exactly the layers of the workload."""
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"design file {path}: cannot be read ({error.strerror}); check the path") from None
    except ValueError as error:
        raise ValueError(f"design file {path}: no JSON ({error}); write it with save_design") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"design file {path}: schema {found!r}; this version reads {SCHEMA!r}")
    layers = content.get("layers")
    if not isinstance(layers, dict) or not all(isinstance(layer, dict) for layer in layers.values()):
        raise ValueError(f"design file {path}: 'layers' must be an object with one object a layer")
    unknown = sorted(set(layers) - set(workload.names))
    missing = [name for name in workload.names if name not in layers]
    if unknown or missing:
        parts = [f"unknown layer {', '.join(unknown)}"] if unknown else []
        parts += [f"missing layer {', '.join(missing)}"] if missing else []
        raise ValueError(
            f"design file {path}: {' and '.join(parts)}; {workload.name} has {', '.join(workload.names)}: "
            "use a design of this network"
        )
    return content


def _check_layer(who: str, layer: dict[str, Any]) -> None:
    """Raises ValueError unless a layer has every field, no other, and numbers where numbers belong."""
    optional = {*_MEASURED, *_TABLES, "method"}
    missing, unknown = sorted(_FIELDS - set(layer)), sorted(set(layer) - _FIELDS - optional)
    if missing or unknown:
        parts = [f"{', '.join(missing)} missing"] if missing else []
        parts += [f"unknown field {', '.join(unknown)}"] if unknown else []
        raise ValueError(f"{who}: {' and '.join(parts)}; a layer has {', '.join(sorted(_FIELDS))}")
    for field in _NUMBERS:
        if not _is_number(layer[field]) or layer[field] < 0 or (layer[field] == 0 and field != "threshold"):
            raise ValueError(f"{who}: {field} is {layer[field]!r}; write a finite number above 0")
    for field in _TABLES:
        numbers = layer.get(field, [1.0])
        if not isinstance(numbers, list) or not numbers or not all(map(_is_number, numbers)):
            raise ValueError(f"{who}: {field} is {numbers!r}; write a list of finite numbers, or leave it out")
    if not isinstance(layer["input_signed"], bool):
        raise ValueError(f"{who}: input_signed is {layer['input_signed']!r}; write true or false")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _row(who: str, layer: dict[str, Any], table: Tilings, index: int) -> int:
    """Row of the tiling table with this tile and stationarity."""
    tile, stationary = layer["tile"], layer["stationary"]
    if stationary not in STATIONARITIES:
        raise ValueError(f"{who}: stationary is {stationary!r}; use one of {', '.join(STATIONARITIES)}")
    if not isinstance(tile, dict) or set(tile) != set(_TILE) or not all(type(n) is int for n in tile.values()):
        raise ValueError(f"{who}: tile is {tile!r}; write whole numbers for {', '.join(_TILE)}")
    wanted = [*(tile[name] for name in _TILE), STATIONARITIES.index(stationary)]
    found = np.flatnonzero((table.factors[index] == wanted).all(axis=-1) & (table.valid[index] > 0))
    if not found.size:
        raise ValueError(
            f"{who}: tile {tile}, {stationary} stationary, is not among the {int(table.valid[index].sum())} tilings "
            "worth having for this layer; take one from the table of tilings"
        )
    return int(found[0])
