"""Golden cases from ZigZag: layer, hierarchy and mapping, and what ZigZag's cost model answers for them.

The format is `cooptim-zigzag-golden-1`; a replay of an exported mapping answers in the same words (`Results`). Every
field is read strictly: what is missing, unknown or of another kind is named by file, case and path.
"""

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError

from cooptim.hardware.faults import first_fault
from cooptim.hardware.hierarchy import Hierarchy, Memory, Port, require_paths
from cooptim.mapping.levels import Loops, mapping_from_levels
from cooptim.mapping.nest import LayerShape, Mapping, nest_of
from cooptim.workload import OPERANDS
from cooptim.workload.dims import DIMS

FORMAT = "cooptim-zigzag-golden-1"
Count = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(ge=0)]
Operand = Literal["W", "I", "O"]
Direction = Literal["read_to_low", "write_from_low", "read_to_high", "write_from_high"]
Dim = Literal["B", "G", "K", "C", "OY", "OX", "FY", "FX"]
# JSON has lists only; what is inside a pair stays strict.
Served = Annotated[tuple[Operand, Direction], Strict(False)]
Loop = Annotated[tuple[Dim, Count], Strict(False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Port(_Strict):
    name: str
    type: Literal["read", "write", "read_write"]
    bw_min_bits: Count
    bw_max_bits: Count
    serves: list[Served]


class _Memory(_Strict):
    name: str
    size_bits: Count
    read_energy_pj: Amount
    write_energy_pj: Amount
    operands: Annotated[list[Operand], Field(min_length=1)]
    served_dims: list[str]
    ports: Annotated[list[_Port], Field(min_length=1)]


class _Hardware(_Strict):
    name: str
    array_dims: dict[str, Count]
    mac_energy_pj: Amount
    systolic_dims: list[str]
    memories: Annotated[list[_Memory], Field(min_length=1)]


class _Pair(_Strict):
    OY: Count
    OX: Count


def _per_axis(found: Any) -> Any:
    """One number stands for both axes."""
    return {"OY": found, "OX": found} if isinstance(found, int) and not isinstance(found, bool) else found


class _InputSize(_Strict):
    IY: Count
    IX: Count


class _Bits(_Strict):
    W: Count
    I: Count  # noqa: E741 - the operand
    O_partial: Count
    O_final: Count


class _Layer(_Strict):
    type: str
    dims: dict[Dim, Count]
    stride: _Pair
    dilation: Annotated[_Pair, BeforeValidator(_per_axis)]
    input_size: _InputSize
    precision_bits: _Bits


class _PerOperand(_Strict):
    W: list[list[Loop]]
    I: list[list[Loop]]  # noqa: E741 - the operand
    O: list[list[Loop]]  # noqa: E741 - the operand


class _Mapping(_Strict):
    spatial: dict[str, dict[Dim, Count]]
    temporal: _PerOperand


def _four(found: dict[str, float]) -> dict[str, float]:
    missing = [d for d in ("read_to_low", "write_from_low", "read_to_high", "write_from_high") if d not in found]
    if missing:
        raise ValueError(f"{missing[0]} missing; give all four directions, 0 where nothing moves")
    return found


Directions = Annotated[dict[Direction, Amount], AfterValidator(_four)]


class LevelResult(_Strict):
    """One operand's level: what one instance holds, and what all of them move, per direction."""

    memory: str
    instances_used: Amount
    tile_elements_per_instance: Amount
    tile_bits_per_instance: Amount
    accesses: Directions
    element_moves: Directions | None = None  # informative: not what energy is computed from
    elements_per_period: Directions
    period_cycles: Directions
    period_count: Directions
    precision_bits: Directions
    transfer_cycles_per_period: Directions
    allowed_cycles_per_period: Directions
    double_buffered: bool
    energy_pj: Amount


class LatencyResult(_Strict):
    """Cycles; a negative stall of a port is slack."""

    ideal_cycles: Amount
    temporal_cycles: Amount
    stall_cycles: Amount
    onload_cycles: Amount
    offload_cycles: Amount
    drain_cycles: Amount
    computation_cycles: Amount
    total_cycles: Amount
    stall_per_port: dict[str, float]


class Results(_Strict):
    """What ZigZag answers for one case."""

    mac_count: Amount
    mac_energy_pj: Amount
    memory_energy_pj: Amount
    energy_total_pj: Amount
    tensor_elements: dict[Operand, Amount]
    temporal_after_merge: _PerOperand | None = None
    memory_utilization: dict[str, Amount]
    levels: dict[Operand, list[LevelResult]]
    latency: LatencyResult


class _Case(_Strict):
    id: Annotated[str, Field(min_length=1)]
    description: str
    tags: list[str]
    hardware: _Hardware
    layer: _Layer
    mapping: _Mapping
    results: Results


class _Settings(_Strict):
    access_same_data_considered_as_no_access: Literal[True]
    cycles_per_op: Literal[1]


@dataclasses.dataclass(frozen=True)
class ZigzagCase:
    """One case; `where` is its place in the file, for messages."""

    where: str
    id: str
    machine: Hierarchy
    shape: LayerShape
    mapping: Mapping
    results: Results


def cases_of(content: Any, origin: str) -> tuple[ZigzagCase, ...]:
    """The cases of a golden file.

    Args:
      content: the file as `hardware.strict_json.read_json` gives it; origin: its name, for messages.

    Raises ValueError that names file, case and field, what was found and what is legal.
    """
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format", "missing") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{origin}: format: found {found}; legal: {FORMAT}")
    fields = ("format", "zigzag_version", "zigzag_settings", "cases")
    for name in fields:
        if name not in content:
            raise ValueError(f"{origin}: {name}: missing; add it, a golden file has {', '.join(fields)}")
    for name in content:
        if name not in fields:
            raise ValueError(f"{origin}: {name}: unknown field; a golden file has {', '.join(fields)}")
    try:
        _Settings.model_validate(content["zigzag_settings"])
    except ValidationError as error:
        raise ValueError(f"{origin}: {first_fault(error, ('zigzag_settings',))}") from None
    raw = content["cases"]
    if not isinstance(raw, list) or not raw:
        found = "none" if raw == [] else type(raw).__name__
        raise ValueError(f"{origin}: cases: found {found}; legal: a list of at least one case")
    found_cases, ids = [], set()
    for i, entry in enumerate(raw):
        case = _case(entry, origin, i)
        if case.id in ids:
            raise ValueError(f"{case.where}: id: used by two cases; give each its own")
        ids.add(case.id)
        found_cases.append(case)
    return tuple(found_cases)


def _case(entry: Any, origin: str, i: int) -> ZigzagCase:
    name = entry.get("id") if isinstance(entry, dict) else None
    where = f"{origin}: case {name}" if isinstance(name, str) else f"{origin}: cases[{i}]"
    try:
        case = _Case.model_validate(entry)
    except ValidationError as error:
        raise ValueError(f"{where}: {first_fault(error)}") from None
    try:
        machine = _machine(case.hardware)
        shape = _shape(case.layer)
        spatial: dict[str, Loops] = {axis: tuple(pairs.items()) for axis, pairs in case.mapping.spatial.items()}
        temporal = {op: getattr(case.mapping.temporal, op) for op in OPERANDS}
        mapping = mapping_from_levels(spatial, temporal, machine)
        nest_of("mapping", shape, mapping, machine)
        require_answers(case.results, machine)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return ZigzagCase(where, case.id, machine, shape, mapping, case.results)


def _machine(found: _Hardware) -> Hierarchy:
    legal = ", ".join(found.array_dims)
    names = [memory.name for memory in found.memories]
    if len(set(names)) < len(names):
        raise ValueError(f"hardware.memories: names {', '.join(names)}; legal: each once")
    for dim in found.systolic_dims:
        if dim not in found.array_dims:
            raise ValueError(f"hardware.systolic_dims: '{dim}' is no array dimension; legal: {legal}")
    memories = []
    for i, memory in enumerate(found.memories):
        place = f"hardware.memories[{i}] ({memory.name})"
        for dim in memory.served_dims:
            if dim not in found.array_dims:
                raise ValueError(f"{place}.served_dims: '{dim}' is no array dimension; legal: {legal}")
        for j, port in enumerate(memory.ports):
            _require_port(f"{place}.ports[{j}] ({port.name})", port, memory)
        size = float(memory.size_bits)
        memories.append(
            Memory(
                memory.name, tuple(memory.operands), tuple(memory.served_dims), "room",
                tuple(
                    Port(p.name, p.type, tuple(p.serves), float(p.bw_max_bits), float(p.bw_min_bits))
                    for p in memory.ports
                ),
                size, memory.read_energy_pj, memory.write_energy_pj, size, 0.0, size, size, 1.0, 0.0, 0.0,
            )
        )  # fmt: skip
    machine = Hierarchy(
        found.name, tuple(found.array_dims.items()), tuple(found.systolic_dims), tuple(memories),
        found.mac_energy_pj, 1.0,
    )  # fmt: skip
    require_paths(machine)
    return machine


def _require_port(place: str, port: _Port, memory: _Memory) -> None:
    if port.bw_min_bits > port.bw_max_bits:
        raise ValueError(
            f"{place}: bw_min_bits {port.bw_min_bits} above bw_max_bits {port.bw_max_bits}; legal: at most"
        )
    for operand, direction in port.serves:
        if operand not in memory.operands:
            raise ValueError(f"{place}.serves: {operand} is not held here; legal: {', '.join(memory.operands)}")
        if port.type != "read_write" and not direction.startswith(port.type):
            raise ValueError(
                f"{place}.serves: {operand} {direction} on a {port.type} port; legal: read_write, or the other"
            )


def _shape(layer: _Layer) -> LayerShape:
    missing = [dim for dim in DIMS if dim not in layer.dims]
    if missing:
        raise ValueError(f"layer.dims: {missing[0]} missing; give each of {', '.join(DIMS)}, 1 where it is no loop")
    bounds = tuple(layer.dims[dim] for dim in DIMS)  # type: ignore[index]
    size, bits = layer.input_size, layer.precision_bits
    return LayerShape(
        bounds, (layer.stride.OY, layer.stride.OX), (layer.dilation.OY, layer.dilation.OX), (size.IY, size.IX),
        bits.W, bits.I, bits.O_partial, bits.O_final,
    )  # fmt: skip


def require_answers(results: Results, machine: Hierarchy) -> None:
    """Raises ValueError unless the results speak of the memories, ports and levels that the machine has."""
    ports = {f"{memory.name}/{port.name}" for memory in machine.memories for port in memory.ports if port.serves}
    for place, found, legal in (
        ("results.tensor_elements", set(results.tensor_elements), set(OPERANDS)),
        ("results.levels", set(results.levels), set(OPERANDS)),
        ("results.memory_utilization", set(results.memory_utilization), {memory.name for memory in machine.memories}),
        ("results.latency.stall_per_port", set(results.latency.stall_per_port), ports),
    ):
        if found != legal:
            odd = sorted(found - legal)
            what = f"unknown {odd[0]}" if odd else f"{min(legal - found)} missing"
            raise ValueError(f"{place}: {what}; legal: one entry for each of {', '.join(sorted(legal))}")
    for operand in OPERANDS:
        names = [machine.memories[i].name for i in machine.levels(operand)]
        given = [level.memory for level in results.levels[operand]]  # type: ignore[index]
        if given != names:
            raise ValueError(
                f"results.levels.{operand}: memories {', '.join(given)}; the hardware has {', '.join(names)}"
            )
