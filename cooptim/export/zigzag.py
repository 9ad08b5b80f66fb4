"""Mappings as files that ZigZag replays: accelerator, workload, mapping, loops per level, and the script that runs it.

A folder holds accelerator.yaml, workload.yaml and mapping.yaml in ZigZag's own formats, temporal.json with the loops of
every memory level (ZigZag's files cannot say them) and replay.py, which builds the mapping through ZigZag's classes.

What ZigZag cannot say is refused by name: more than four array dimensions, a memory that is never double-buffered,
sizes and widths that are no whole bits. It calls array dimensions D1 to D4, and ports by kind and number, so these are
renamed; a memory without limit becomes one of 1e18 bit; loops and unrollings of 1 are left out.
"""

import importlib.resources
import json
import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import yaml

from cooptim.export.atomic import require_writable, write_bytes
from cooptim.hardware.hierarchy import Hierarchy, Memory, Port, require_paths
from cooptim.hardware.zigzag import DIRECTIONS, OPERANDS
from cooptim.mapping.nest import LayerShape, Mapping, nest_of
from cooptim.workload.dims import DIMS

TEMPORAL_FORMAT = "cooptim-zigzag-temporal-1"
UNLIMITED_BITS = 10**18
EQUATION = "O[b][g][k][oy][ox]+=W[g][k][c][fy][fx]*I[b][g][c][iy][ix]"
MAX_DIMS = 4  # of the array, in ZigZag's mapping files
_MEMORY_OPERAND = {ours: theirs for theirs, ours in OPERANDS.items()}
_MEMORY_DIRECTION = {ours: theirs for theirs, ours in DIRECTIONS.items()}
_PORT_PREFIX = {"read": "r", "write": "w", "read_write": "rw"}

Assignment = tuple[str, LayerShape, Mapping]


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Writes equal values out: ZigZag's files have no anchors."""
        return True


def write_zigzag(folder: str | os.PathLike[str], machine: Hierarchy, layers: Sequence[Assignment]) -> pathlib.Path:
    """Writes layers mapped on one machine for replay, and returns the folder.

    Args:
      layers: (name, shape, mapping) of each; names must differ.

    Raises ValueError for an illegal mapping, for what ZigZag cannot say, and when the folder cannot be written.
    """
    require_paths(machine)
    _require_names([name for name, _, _ in layers])
    for name, shape, mapping in layers:
        nest_of(name, shape, mapping, machine)
    files = {
        "accelerator.yaml": _yaml(_accelerator(machine)),
        "workload.yaml": _yaml([_layer(i, name, shape) for i, (name, shape, _) in enumerate(layers)]),
        "mapping.yaml": _yaml(
            [*(_spatial(name, mapping, machine) for name, _, mapping in layers), {"name": "default"}]
        ),
        "temporal.json": _temporal(layers),
        "replay.py": (importlib.resources.files("cooptim.export") / "zigzag_replay.py").read_bytes(),
    }
    path = require_writable(folder)
    for name, content in files.items():
        write_bytes(path / name, content)
    (path / "results.json").unlink(missing_ok=True)  # of an earlier replay
    return path


def _require_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1 or name in ("", "default"):
            raise ValueError(f"layer '{name}': used twice, or empty or 'default'; give each layer a name of its own")


def _yaml(content: Any) -> bytes:
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
    return str(text).encode()


def _whole(place: str, value: Any, unit: str = " bit") -> int:
    found = float(np.asarray(value))
    if not math.isfinite(found) or found != int(found) or found < 1:
        raise ValueError(f"{place}: {found:g}{unit}; ZigZag takes whole numbers of at least 1: round it before export")
    return int(found)


def _dim_names(machine: Hierarchy) -> dict[str, str]:
    """ZigZag's name of each array dimension."""
    if len(machine.array) > MAX_DIMS:
        raise ValueError(
            f"machine {machine.name}: array dimensions {', '.join(machine.array_dims)}; ZigZag's mapping files know "
            f"{MAX_DIMS}: merge some before export"
        )
    return {name: f"D{i + 1}" for i, name in enumerate(machine.array_dims)}


def _accelerator(machine: Hierarchy) -> dict[str, Any]:
    dims = _dim_names(machine)
    memories = {memory.name: _memory(machine.name, memory, dims) for memory in machine.memories}
    if len(memories) < len(machine.memories):
        raise ValueError(f"machine {machine.name}: two memories of one name; ZigZag's file has a key for each: rename")
    array: dict[str, Any] = {
        "unit_energy": float(np.asarray(machine.mac_pj)),
        "unit_area": 0,
        "dimensions": list(dims.values()),
        "sizes": [size for _, size in machine.array],
        "systolic_dimensions": [dims[name] for name in machine.systolic_dims],
    }
    return {"name": machine.name, "memories": memories, "operational_array": array}


def _memory(machine: str, memory: Memory, dims: dict[str, str]) -> dict[str, Any]:
    place = f"machine {machine}: memory {memory.name}"
    if memory.double_buffered == "never":
        raise ValueError(f"{place}: never double-buffered; ZigZag decides that by room: use 'room' before export")
    size = float(np.asarray(memory.size_bits))
    scales = {float(np.asarray(port.width_scale())) for port in memory.ports}
    if len(scales) > 1:
        raise ValueError(f"{place}: energies of its ports differ with their widths; ZigZag has one a memory")
    scale = float(np.asarray(memory.access_scale())) * scales.pop()
    return {
        "size": UNLIMITED_BITS if math.isinf(size) else _whole(f"{place}: size", size),
        "r_cost": float(np.asarray(memory.read_pj)) * scale,
        "w_cost": float(np.asarray(memory.write_pj)) * scale,
        "area": 0,
        "latency": 1,
        "operands": [_MEMORY_OPERAND[operand] for operand in memory.operands],
        "ports": [_port(place, name, port) for name, port in zip(_port_names(memory), memory.ports, strict=True)],
        "served_dimensions": [dims[name] for name in memory.served_dims],
        "force_double_buffering": memory.double_buffered == "always",
    }


def _port_names(memory: Memory) -> list[str]:
    """Names as ZigZag wants them: those of the memory where all are so, else by kind and number."""
    given = [port.name for port in memory.ports]
    if len(set(given)) == len(given) and all(re.fullmatch(r"r?w?_port_\d+", name) for name in given):
        return given
    kinds = [_PORT_PREFIX[port.kind] for port in memory.ports]
    return [f"{kind}_port_{kinds[: i + 1].count(kind)}" for i, kind in enumerate(kinds)]


def _port(place: str, name: str, port: Port) -> dict[str, Any]:
    return {
        "name": name,
        "type": port.kind,
        "bandwidth_min": _whole(f"{place}: granule of {port.name}", port.bw_min_bits),
        "bandwidth_max": _whole(f"{place}: width of {port.name}", port.bw_max_bits),
        "allocation": [f"{_MEMORY_OPERAND[op]}, {_MEMORY_DIRECTION[direction]}" for op, direction in port.serves],
    }


def _layer(i: int, name: str, shape: LayerShape) -> dict[str, Any]:
    (sy, sx), (dy, dx) = shape.stride, shape.dilation
    bits = {"W": shape.w_bits, "I": shape.i_bits, "O": shape.psum_bits, "O_final": shape.o_bits}
    return {
        "id": i,
        "name": name,
        "operator_type": "Conv",
        "equation": EQUATION,
        "dimension_relations": [f"ix={int(sx)}*ox+{int(dx)}*fx", f"iy={int(sy)}*oy+{int(dy)}*fy"],
        "loop_dims": list(DIMS),
        "loop_sizes": [int(bound) for bound in shape.bounds],
        "operand_precision": {operand: _whole(f"{name}: {operand}", value) for operand, value in bits.items()},
        "operand_source": {"W": i, "I": i},  # no layer waits for another
        "pr_loop_dims": ["IX", "IY"],
        "pr_loop_sizes": [int(shape.input_size[1]), int(shape.input_size[0])],
    }


def _spatial(name: str, mapping: Mapping, machine: Hierarchy) -> dict[str, Any]:
    dims = _dim_names(machine)
    used = {}
    for axis in machine.array_dims:
        pairs = [f"{dim}, {units}" for dim, units in mapping.spatial.get(axis, ()) if units > 1]
        if pairs:
            used[dims[axis]] = pairs
    return {
        "name": name,
        "spatial_mapping": used,
        "memory_operand_links": {operand: _MEMORY_OPERAND[operand] for operand in ("O", "W", "I")},
    }


def _temporal(layers: Sequence[Assignment]) -> bytes:
    loops = {
        name: {
            operand: [[[dim, size] for dim, size in level if size > 1] for level in mapping.level_loops(operand)]
            for operand in ("W", "I", "O")
        }
        for name, _, mapping in layers
    }
    return json.dumps({"format": TEMPORAL_FORMAT, "layers": loops}).encode() + b"\n"
