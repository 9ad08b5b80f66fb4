"""mapping.json: mappings of a network that a person can read, write and change, checked when they are read.

| field | | meaning |
|---|---|---|
| format | required | cooptim-mapping-1 |
| machine | required | a hierarchy of the package, or a YAML file by its path from the folder of this file |
| bits | required | W, I, psum, O: bits of weights, inputs, partial sums, outputs; a layer may have its own |
| layers | required | an object with one object a layer |
| network, rules, objective | unnamed, hardware, energy | what the mappings are of, and how they are priced |
| version, legend, found | | a record of the search and how to read it; never read back, every read prices again |

Of a layer: `bounds`, as 'K64 C3 OY112 OX112 FY7 FX7' (what is not named is 1); `stride`, `dilation` and `input_size`
(vertical, horizontal; 1, 1 and what the windows span); `repeat` (1); `bits`; `spatial`, per array dimension the units
of each loop as 'K32'; `loops`, as 'FX7 C3 OY112', innermost first; `cuts`, per operand and memory that holds it how
many of the loops run inside its tile: the outermost holds them all.
"""

import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from cooptim.export.atomic import require_writable, write_bytes
from cooptim.hardware.faults import first_fault
from cooptim.hardware.hierarchy import Hierarchy
from cooptim.hardware.hierarchy_file import hierarchy_names, load_hierarchy
from cooptim.hardware.strict_json import read_json
from cooptim.mapping.legal import require_legal
from cooptim.mapping.nest import LayerShape, Mapping, layer_shape, nest_of
from cooptim.mapping.price import price
from cooptim.mapping.search import Certificate
from cooptim.workload import OPERANDS, Bounds, Layer
from cooptim.workload.dims import DIMS

FORMAT = "cooptim-mapping-1"
LEGEND = "loops: innermost first; cuts: how many of them run inside the tile of a memory; spatial: units of the array"
NAME = "mapping.json"
_MOST = 10**9  # of a bound or factor: beyond it stands a typing error
Count = Annotated[int, Field(ge=1, le=_MOST)]
Width = Annotated[float, Field(gt=0, le=_MOST)]
Pair = Annotated[tuple[Count, Count], Strict(False)]
Loops = tuple[tuple[str, int], ...]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Bits(_Strict):
    W: Width
    I: Width  # noqa: E741 - the operand
    psum: Width
    O: Width  # noqa: E741 - the operand


class _Cuts(_Strict):
    W: dict[str, Annotated[int, Field(ge=0)]]
    I: dict[str, Annotated[int, Field(ge=0)]]  # noqa: E741 - the operand
    O: dict[str, Annotated[int, Field(ge=0)]]  # noqa: E741 - the operand


class _Layer(_Strict):
    bounds: str
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    input_size: Pair | None = None
    repeat: Count = 1
    bits: _Bits | None = None
    spatial: dict[str, str] = {}
    loops: str
    cuts: _Cuts
    found: dict[str, float] = {}


class _File(_Strict):
    format: Literal["cooptim-mapping-1"]
    version: str = ""
    legend: str = ""
    network: str = "unnamed"
    machine: str
    rules: Literal["hardware", "zigzag"] = "hardware"
    objective: Literal["energy", "edp"] = "energy"
    bits: _Bits
    found: dict[str, float] = {}
    layers: Annotated[dict[str, Any], Field(min_length=1)]


@dataclasses.dataclass(frozen=True)
class MappedLayer:
    """One layer with a mapping; `repeat` executions in one inference."""

    name: str
    shape: LayerShape
    mapping: Mapping
    repeat: int = 1


@dataclasses.dataclass(frozen=True)
class MappedNetwork:
    """Mappings of the layers of a network on one machine.

    Attributes:
      machine_file: name of the machine in the package, or the path of its file.
      rules, objective: names of the conventions and of the goal that the mappings are meant for.
    """

    network: str
    machine: Hierarchy
    machine_file: str
    rules: str
    objective: str
    layers: tuple[MappedLayer, ...]


def is_mapping_file(content: Any) -> bool:
    """Whether the content of a JSON file is meant as mappings, however faulty."""
    return isinstance(content, dict) and str(content.get("format", "")).startswith("cooptim-mapping")


def write_mappings(
    folder: str | os.PathLike[str], mapped: MappedNetwork, found: Sequence[Certificate], totals: dict[str, float]
) -> pathlib.Path:
    """Writes mapping.json, and machine.yaml beside it where the machine is a file, and returns the former's path.

    Args:
      found: the certificate of each layer. totals: of the network, for the record.

    Raises ValueError when the folder cannot be written; no file is ever half-written.
    """
    path = require_writable(folder)
    packaged = mapped.machine_file in hierarchy_names()
    if not packaged:
        write_bytes(path / "machine.yaml", pathlib.Path(mapped.machine_file).read_bytes())
    bits = _bits(mapped.layers[0].shape)
    head = {
        "format": FORMAT,
        "version": version("cooptim"),
        "legend": LEGEND,
        "network": mapped.network,
        "machine": mapped.machine_file if packaged else "machine.yaml",
        "rules": mapped.rules,
        "objective": mapped.objective,
        "bits": bits,
        "found": totals,
    }
    lines = [f" {_json(key)}: {_json(value)}," for key, value in head.items()]
    layers = [
        f"  {_json(layer.name)}: {{\n" + ",\n".join(f"   {_json(k)}: {_json(v)}" for k, v in fields.items()) + "}"
        for layer, fields in (
            (layer, _fields(layer, one, mapped.machine, bits)) for layer, one in zip(mapped.layers, found, strict=True)
        )
    ]
    text = "\n".join(["{", *lines, ' "layers": {', ",\n".join(layers), " }", "}"]) + "\n"
    write_bytes(path / NAME, text.encode())
    return path / NAME


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def _bits(shape: LayerShape) -> dict[str, float]:
    bits = {"W": shape.w_bits, "I": shape.i_bits, "psum": shape.psum_bits, "O": shape.o_bits}
    return {name: int(width) if width == int(width) else float(width) for name, width in bits.items()}


def _fields(layer: MappedLayer, found: Certificate, machine: Hierarchy, bits: dict[str, float]) -> dict[str, Any]:
    shape, mapping = layer.shape, layer.mapping
    fields: dict[str, Any] = {
        "bounds": _spell([(d, b) for d, b in zip(DIMS, shape.bounds, strict=True) if b > 1]),
        "stride": shape.stride,
        "dilation": shape.dilation,
        "input_size": shape.input_size,
        "repeat": layer.repeat,
    }
    if _bits(shape) != bits:
        fields["bits"] = _bits(shape)
    names = {o: [machine.memories[i].name for i in machine.levels(o)] for o in OPERANDS}
    return {
        **fields,
        "spatial": {axis: _spell(pairs) for axis, pairs in mapping.spatial.items() if pairs},
        "loops": _spell(mapping.loops),
        "cuts": {o: dict(zip(names[o], mapping.cuts[o], strict=True)) for o in OPERANDS},
        "found": {
            "energy_pj": found.energy_pj,
            "cycles": found.cycles,
            "bound": found.bound,
            "gap": max(0.0, found.gap),
            "space_log10": round(found.space_log10, 2),
            "cpu_s": round(found.cpu_s, 3),
        },
    }


def _spell(loops: Sequence[tuple[str, int]]) -> str:
    return " ".join(f"{dim}{size}" for dim, size in loops)


def read_mappings(path: str | os.PathLike[str]) -> MappedNetwork:
    """The mappings of a file, each checked against its layer and the machine.

    Raises ValueError that names file, layer, level or loop, operand, what was found and what is legal: unknown and
    missing fields, a layer twice, factors that do not multiply to a bound, unknown levels, units beyond the array,
    an overfilled memory.
    """
    content = read_json(path)
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{path}: {first_fault(error)}") from None
    packaged = file.machine in hierarchy_names()
    place = file.machine if packaged else str(pathlib.Path(path).parent / file.machine)
    if not packaged and not pathlib.Path(place).is_file():
        raise ValueError(
            f"{path}: machine: '{file.machine}' is neither a file beside it nor one of {', '.join(hierarchy_names())}"
        )
    machine = load_hierarchy(place)
    layers = tuple(_layer(f"{path}: layer {name}", name, entry, file, machine) for name, entry in file.layers.items())
    return MappedNetwork(file.network, machine, place, file.rules, file.objective, layers)


def _layer(where: str, name: str, entry: Any, file: _File, machine: Hierarchy) -> MappedLayer:
    try:
        layer = _Layer.model_validate(entry)
    except ValidationError as error:
        raise ValueError(f"{where}: {first_fault(error)}") from None
    shape = _shape(where, layer, layer.bits or file.bits)
    spatial = {axis: _loops(f"{where}: spatial.{axis}", text) for axis, text in layer.spatial.items()}
    loops = _loops(f"{where}: loops", layer.loops)
    cuts = {o: _cuts(f"{where}: cuts.{o}", o, getattr(layer.cuts, o), machine) for o in OPERANDS}
    mapping = Mapping(loops, spatial, cuts)
    require_legal(where, price(nest_of(where, shape, mapping, machine), shape, machine), shape, machine)
    return MappedLayer(name, shape, mapping, layer.repeat)


def _shape(where: str, layer: _Layer, bits: _Bits) -> LayerShape:
    sizes: dict[str, int] = {}
    for dim, bound in _loops(f"{where}: bounds", layer.bounds):
        if dim in sizes:
            raise ValueError(f"{where}: bounds: {dim} a second time; give each bound once")
        sizes[dim] = bound
    if math.prod(sizes.values()) > 2**53:
        raise ValueError(f"{where}: bounds: {math.prod(sizes.values())} multiply-accumulates; legal: at most 2^53")
    plain = Layer("layer", "conv", Bounds(**sizes), layer.stride, layer.dilation)
    shape = layer_shape(plain, bits.W, bits.I, bits.psum, bits.O)
    return shape if layer.input_size is None else dataclasses.replace(shape, input_size=layer.input_size)


def _loops(where: str, text: str) -> Loops:
    found = []
    for word in text.split():
        match = re.fullmatch(rf"({'|'.join(DIMS)})([1-9][0-9]{{0,9}})", word)
        if match is None or int(match.group(2)) > _MOST:
            raise ValueError(
                f"{where}: found '{word}'; legal: a loop of {', '.join(DIMS)} and its size from 1 to {_MOST}, such as "
                "K32, with spaces between"
            )
        found.append((match.group(1), int(match.group(2))))
    return tuple(found)


def _cuts(where: str, operand: str, given: dict[str, int], machine: Hierarchy) -> tuple[int, ...]:
    names = [machine.memories[i].name for i in machine.levels(operand)]
    odd, missing = [n for n in given if n not in names], [n for n in names if n not in given]
    if odd or missing:
        what = f"unknown level '{odd[0]}'" if odd else f"level '{missing[0]}' missing"
        raise ValueError(f"{where}: {what}; {machine.name} holds {operand} in {', '.join(names)}: give each one number")
    return tuple(given[name] for name in names)
