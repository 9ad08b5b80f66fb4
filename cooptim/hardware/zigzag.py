"""Hierarchies from ZigZag's hardware YAML.

Read as ZigZag 3.9.1 reads it: the last of two equal keys counts, so does the last port that allocates a direction of an
operand, and what a port serves is ordered by operand. I1 is I, I2 is W; fh, tl, fl, th are write_from_high,
read_to_low, write_from_low, read_to_high; sizes and widths are bits, costs pJ an access of the port's full width.
`force_double_buffering` becomes double_buffered 'always'. `area`, `unit_area`, `latency`, `mem_type` and
`input_precision` may stand there and price nothing, as in ZigZag's own model of digital arrays.

Not supported, and refused by name: in-memory-computing arrays (`is_imc`), costs by CACTI (`auto_cost_extraction`), and
`dataflows`, which is a mapping.
"""

import os
import pathlib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cooptim.hardware.faults import first_fault
from cooptim.hardware.hierarchy import Hierarchy, Memory, Port, require_paths
from cooptim.hardware.load import MachineError
from cooptim.hardware.strict_yaml import StrictYamlError, read_strict

OPERANDS: dict[str, str] = {"I1": "I", "I2": "W", "O": "O"}
DIRECTIONS: dict[str, str] = {
    "fh": "write_from_high",
    "tl": "read_to_low",
    "fl": "write_from_low",
    "th": "read_to_high",
}
_TRUTHS = {"True": True, "False": False}

Whole = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(ge=0)]
Truth = Annotated[bool, BeforeValidator(lambda found: _TRUTHS.get(found, found) if isinstance(found, str) else found)]
ArrayDim = Annotated[str, Field(pattern=r"^D\d$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Port(_Strict):
    name: Annotated[str, Field(pattern=r"^r?w?_port_\d+$")]
    type: Literal["read", "write", "read_write"]
    bandwidth_min: Whole
    bandwidth_max: Whole
    allocation: list[Annotated[str, Field(pattern=r"^(I1|I2|O), (fh|tl|fl|th)$")]]


class _Memory(_Strict):
    size: Whole
    r_cost: Amount | None = None
    w_cost: Amount | None = None
    operands: Annotated[list[Literal["I1", "I2", "O"]], Field(min_length=1)]
    ports: Annotated[list[_Port], Field(min_length=1)]
    served_dimensions: list[ArrayDim]
    force_double_buffering: Truth = False
    auto_cost_extraction: Truth = False
    area: Any = None
    latency: Any = None
    mem_type: Any = None


class _Array(_Strict):
    dimensions: Annotated[list[ArrayDim], Field(min_length=1)]
    sizes: list[Whole]
    unit_energy: Amount | None = None
    systolic_dimensions: list[ArrayDim] = []
    is_imc: Truth = False
    imc_type: Any = None
    adc_resolution: Any = None
    bit_serial_precision: Any = None
    unit_area: Any = None
    input_precision: Any = None


class _Accelerator(_Strict):
    name: str
    memories: Annotated[dict[str, _Memory], Field(min_length=1)]
    operational_array: _Array
    dataflows: Any = None


def read_zigzag(path: str | os.PathLike[str]) -> Hierarchy:
    """The hierarchy of a hardware file of ZigZag.

    Raises MachineError that names the file and the field, what was found and what is legal.
    """
    name = str(path)
    try:
        data = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise MachineError(f"{name}: cannot be read ({error.strerror}); give the path of a file you may read") from None
    try:
        return _hierarchy(_Accelerator.model_validate(read_strict(data, last_of_equal_keys=True)))
    except ValidationError as error:
        raise MachineError(f"{name}: {first_fault(error)}") from None
    except (StrictYamlError, ValueError) as error:
        raise MachineError(f"{name}: {error}") from None


def _hierarchy(found: _Accelerator) -> Hierarchy:
    array = found.operational_array
    _require_digital(found)
    if len(array.sizes) != len(array.dimensions) or len(set(array.dimensions)) < len(array.dimensions):
        raise ValueError(
            f"operational_array: dimensions {', '.join(array.dimensions)} of sizes {array.sizes}; legal: each "
            "dimension once, and one size for each"
        )
    if array.unit_energy is None:
        raise ValueError("operational_array.unit_energy: missing; give the energy of one MAC in pJ")
    _require_dims("operational_array.systolic_dimensions", array.systolic_dimensions, array)
    memories = tuple(_memory(name, memory, array) for name, memory in found.memories.items())
    machine = Hierarchy(
        found.name, tuple(zip(array.dimensions, array.sizes, strict=True)), tuple(array.systolic_dimensions), memories,
        array.unit_energy, 1.0,
    )  # fmt: skip
    require_paths(machine)
    return machine


def _require_digital(found: _Accelerator) -> None:
    array = found.operational_array
    odd = [name for name in ("imc_type", "adc_resolution", "bit_serial_precision") if getattr(array, name) is not None]
    if array.is_imc or odd:
        kind = f" ({array.imc_type})" if array.imc_type else ""
        field = "is_imc" if array.is_imc else odd[0]
        raise ValueError(
            f"operational_array.{field}: in-memory-computing arrays{kind} are not supported; legal: a digital array "
            "with unit_energy"
        )
    for name, memory in found.memories.items():
        if memory.auto_cost_extraction:
            raise ValueError(
                f"memories.{name}.auto_cost_extraction: costs by CACTI are not supported; write r_cost and w_cost in pJ"
            )
    if found.dataflows is not None:
        raise ValueError("dataflows: a mapping in a hardware file is not supported; remove it")


def _require_dims(place: str, dims: list[str], array: _Array) -> None:
    for dim in dims:
        if dim not in array.dimensions:
            raise ValueError(f"{place}: '{dim}' is no dimension of the array; legal: {', '.join(array.dimensions)}")


def _memory(name: str, found: _Memory, array: _Array) -> Memory:
    place = f"memories.{name}"
    _require_dims(f"{place}.served_dimensions", found.served_dimensions, array)
    for cost in ("r_cost", "w_cost"):
        if getattr(found, cost) is None:
            raise ValueError(f"{place}.{cost}: missing; give the energy of one access in pJ")
    if len(set(found.operands)) < len(found.operands):
        raise ValueError(f"{place}.operands: {', '.join(found.operands)}; legal: each once")
    size = float(found.size)
    return Memory(
        name, tuple(OPERANDS[operand] for operand in found.operands), tuple(found.served_dimensions),
        "always" if found.force_double_buffering else "room", _ports(place, found), size,
        float(found.r_cost or 0.0), float(found.w_cost or 0.0), size, 0.0, size, size, 1.0, 0.0, 0.0,
    )  # fmt: skip


def _ports(place: str, found: _Memory) -> tuple[Port, ...]:
    """The ports with what they serve: by operand of the memory, a direction at the last port that allocates it."""
    names = [port.name for port in found.ports]
    if len(set(names)) < len(names):
        raise ValueError(f"{place}.ports: names {', '.join(names)}; legal: each once")
    chosen: dict[str, dict[str, str]] = {operand: {} for operand in found.operands}
    for port in found.ports:
        if port.bandwidth_min > port.bandwidth_max:
            raise ValueError(
                f"{place}.{port.name}: bandwidth_min {port.bandwidth_min}; legal: at most bandwidth_max "
                f"{port.bandwidth_max}"
            )
        for pair in port.allocation:
            operand, direction = pair.split(", ")
            kind = "write" if direction.startswith("f") else "read"
            if operand not in chosen:
                raise ValueError(f"{place}.{port.name}: '{pair}'; legal: operands held here, {', '.join(chosen)}")
            if port.type not in (kind, "read_write"):
                raise ValueError(f"{place}.{port.name}: '{pair}' on a {port.type} port; legal: a {kind} port")
            chosen[operand][direction] = port.name
    serves: dict[str, list[tuple[str, str]]] = {name: [] for name in names}
    for operand, directions in chosen.items():
        for direction, name in directions.items():
            serves[name].append((OPERANDS[operand], DIRECTIONS[direction]))
    return tuple(
        Port(port.name, port.type, tuple(serves[port.name]), float(port.bandwidth_max), float(port.bandwidth_min))
        for port in found.ports
        if serves[port.name]
    )
