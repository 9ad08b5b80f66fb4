"""Golden cases from Timeloop: layer, hierarchy and mapping, and what Timeloop answers for them.

The format is a list of cases as in the project's shared golden folder, mappings in Timeloop's v0.3 form. Every field is
read strictly. P, Q, R, S, N stand for OX, OY, FX, FY, B (Wstride goes with P and R, Hstride with Q and S); every level
with a fan-out becomes one array dimension, '<level> children'. Energies and bandwidths stay those of the case: Timeloop
keeps the words of one access (energy) apart from the words of one cycle (time), which one port does not.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cooptim.hardware.faults import first_fault
from cooptim.hardware.hierarchy import DIRECTIONS, Hierarchy, Memory, Port, require_paths
from cooptim.mapping.nest import LayerShape, Mapping, nest_of
from cooptim.mapping.timeloop import Counts, timeloop_counts
from cooptim.workload import Bounds

DIM_OF: dict[str, str] = {"R": "FX", "S": "FY", "P": "OX", "Q": "OY", "C": "C", "K": "K", "N": "B"}
OPERAND_OF: dict[str, str] = {"Weights": "W", "Inputs": "I", "Outputs": "O"}

Count = Annotated[int, Field(ge=1)]
Words = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]
Tensor = Literal["Weights", "Inputs", "Outputs"]
Name = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Layer(_Strict):
    R: Count
    S: Count
    P: Count
    Q: Count
    C: Count
    K: Count
    N: Count
    Wstride: Count
    Hstride: Count


class Level(_Strict):
    """One level of the hierarchy; null capacity or bandwidth is without limit."""

    name: Name
    capacity_words: Count | None
    word_bits: Count
    words_per_access: Count
    instances: Count
    children_per_instance: Count
    keeps: list[Tensor]
    read_pJ: Amount
    write_pJ: Amount
    shared_bandwidth_words_per_cycle_per_instance: Annotated[float, Field(gt=0)] | None


class _Temporal(_Strict):
    target: str
    type: Literal["temporal"]
    factors: str
    permutation: str


class _Spatial(_Strict):
    target: str
    type: Literal["spatial"]
    factors: str
    permutation: str
    split: Words


class _Bypass(_Strict):
    target: str
    type: Literal["bypass"]
    keep: list[Tensor]
    bypass: list[Tensor]


Directive = Annotated[_Temporal | _Spatial | _Bypass, Field(discriminator="type")]


class LevelTensorResult(_Strict):
    """What Timeloop counts for one tensor in one level; words per instance, energy of all instances."""

    level: str
    tensor: Tensor
    tile_words: Words
    instances_used: Count
    reads_per_instance: Words
    fills_per_instance: Words
    updates_per_instance: Words
    temporal_reductions_per_instance: Words
    energy_total_pJ: Amount
    energy_recomputed_pJ: Amount


class _Printed(_Strict):
    energy_uJ: Amount
    utilization_pct_or_frac: Amount


class Results(_Strict):
    """What Timeloop answers for one case."""

    per_level_tensor: list[LevelTensorResult]
    macs: Count
    mac_energy_pJ: Amount
    storage_plus_mac_energy_pJ: Amount
    network_energy_pJ: Amount
    cycles: Count
    compute_cycles: Count
    multipliers_used: Count
    utilization: Annotated[float, Field(gt=0)]
    timeloop_printed: _Printed
    level_cycles: dict[str, Count]


class _Case(_Strict):
    id: Name
    arch_kind: str
    layer_name: Name
    layer: _Layer
    levels: Annotated[list[Level], Field(min_length=1)]
    mac_pJ: Amount
    multipliers: Count
    mesh_xy: Annotated[list[Count], Field(min_length=2, max_length=2)]
    mapping: list[Directive]
    expected: Results


@dataclasses.dataclass(frozen=True)
class TimeloopCase:
    """One case; `where` is its place in the file, for messages; levels innermost first, as in `machine.memories`."""

    where: str
    id: str
    layer_name: str
    machine: Hierarchy
    shape: LayerShape
    mapping: Mapping
    levels: tuple[Level, ...]
    results: Results


def cases_of(content: Any, origin: str) -> tuple[TimeloopCase, ...]:
    """The cases of a golden file.

    Args:
      content: the file as `hardware.strict_json.read_json` gives it; origin: its name, for messages.

    Raises ValueError that names file, case and field (or layer, level and tensor), what was found and what is legal.
    """
    if not isinstance(content, list) or not content:
        found = "an empty list" if content == [] else type(content).__name__
        raise ValueError(f"{origin}: found {found}; legal: a list of at least one case")
    cases: list[TimeloopCase] = []
    for i, entry in enumerate(content):
        case = _case(entry, origin, i)
        if any(case.id == other.id for other in cases):
            raise ValueError(f"{case.where}: id: used by two cases; give each its own")
        cases.append(case)
    return tuple(cases)


def _case(entry: Any, origin: str, i: int) -> TimeloopCase:
    name = entry.get("id") if isinstance(entry, dict) else None
    where = f"{origin}: case {name}" if isinstance(name, str) and name else f"{origin}: cases[{i}]"
    try:
        case = _Case.model_validate(entry)
    except ValidationError as error:
        raise ValueError(f"{where}: {first_fault(error)}") from None
    try:
        levels = tuple(reversed(case.levels))
        _require_levels(case)
        machine = _machine(case, levels)
        shape = _shape(case, levels)
        mapping = _mapping(case, levels, machine)
        found = TimeloopCase(where, case.id, case.layer_name, machine, shape, mapping, levels, case.expected)
        _require_room(found, counts_of(found))
        _require_answers(case)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return found


def _require_levels(case: _Case) -> None:
    names = [level.name for level in case.levels]
    if len(set(names)) < len(names):
        raise ValueError(f"levels: names {', '.join(names)}; legal: each once")
    below = [*(level.instances for level in case.levels[1:]), case.multipliers]
    for i, (level, instances) in enumerate(zip(case.levels, below, strict=True)):
        if level.instances * level.children_per_instance != instances:
            raise ValueError(
                f"levels[{i}] ({level.name}): {level.instances} instances with {level.children_per_instance} children "
                f"each; below it are {instances}; legal: as many children as there are"
            )
        if not level.keeps or len(set(level.keeps)) < len(level.keeps):
            raise ValueError(
                f"levels[{i}] ({level.name}).keeps: found {', '.join(level.keeps) or 'no tensor'}; "
                f"legal: at least one of {', '.join(OPERAND_OF)}, each once"
            )


def _machine(case: _Case, levels: Sequence[Level]) -> Hierarchy:
    array = tuple((_axis(level), level.children_per_instance) for level in levels if level.children_per_instance > 1)
    memories = []
    for i, level in enumerate(levels):
        operands = tuple(OPERAND_OF[tensor] for tensor in OPERAND_OF if tensor in level.keeps)
        # A level feeds all units inside it: where levels between are bypassed, those of theirs too.
        inside = {_axis(other) for other in levels[: i + 1]}
        size = math.inf if level.capacity_words is None else float(level.capacity_words * level.word_bits)
        width = float(level.words_per_access * level.word_bits)
        serves = tuple((operand, direction) for operand in operands for direction in DIRECTIONS)
        memories.append(
            Memory(
                level.name, operands, tuple(name for name, _ in array if name in inside), "never",
                (Port("port", "read_write", serves, width, 1.0),),
                size, level.read_pJ, level.write_pJ, size, 0.0, size, size, 1.0, 0.0, 0.0,
            )
        )  # fmt: skip
    machine = Hierarchy(case.arch_kind, array, (), tuple(memories), case.mac_pJ, 1.0)
    require_paths(machine)
    return machine


def _axis(level: Level) -> str:
    return f"{level.name} children"


def _shape(case: _Case, levels: Sequence[Level]) -> LayerShape:
    layer = case.layer
    bounds = Bounds(**{dim: getattr(layer, letter) for letter, dim in DIM_OF.items()})
    size = ((layer.Q - 1) * layer.Hstride + layer.S, (layer.P - 1) * layer.Wstride + layer.R)
    bits = levels[-1].word_bits
    psum_bits = next(level.word_bits for level in levels if "Outputs" in level.keeps)
    return LayerShape(tuple(bounds), (layer.Hstride, layer.Wstride), (1, 1), size, bits, bits, psum_bits, bits)


def _mapping(case: _Case, levels: Sequence[Level], machine: Hierarchy) -> Mapping:
    temporal: dict[str, list[tuple[str, int]]] = {}
    spatial: dict[str, list[tuple[str, int]]] = {}
    known = {level.name: level for level in levels}
    seen: set[tuple[str, str]] = set()
    for i, directive in enumerate(case.mapping):
        place = f"mapping[{i}] (layer {case.layer_name}, {directive.type} of {directive.target})"
        if directive.target not in known:
            legal = ", ".join(level.name for level in case.levels)
            raise ValueError(f"{place}.target: level '{directive.target}' is unknown; legal: {legal}")
        if (directive.target, directive.type) in seen:
            raise ValueError(f"{place}: a second entry of this type for this level; legal: one")
        seen.add((directive.target, directive.type))
        if isinstance(directive, _Bypass):
            _require_bypass(place, directive, known[directive.target])
            continue
        loops = _loops(place, directive)
        (temporal if isinstance(directive, _Temporal) else spatial)[directive.target] = loops
        children = known[directive.target].children_per_instance
        units = math.prod(factor for _, factor in loops)
        if isinstance(directive, _Spatial) and units > children:
            raise ValueError(
                f"{place}.factors: {_spell(loops)} = {units} units, unrolled beyond the {children} children of an "
                f"instance of {directive.target}; legal: at most {children}"
            )
    for level in levels:
        if level.name not in temporal:
            raise ValueError(
                f"mapping: layer {case.layer_name}, level {level.name}: no temporal entry; add one, with factors of 1 "
                "where the level has no loops"
            )
    _require_bounds(case, temporal, spatial)
    slots = [(DIM_OF[dim], factor) for level in levels for dim, factor in temporal[level.name] if factor > 1]
    inside, total = {}, 0
    for level in levels:
        total += sum(factor > 1 for _, factor in temporal[level.name])
        inside[level.name] = total
    cuts = {op: tuple(inside[machine.memories[i].name] for i in machine.levels(op)) for op in OPERAND_OF.values()}
    units_of = {
        f"{name} children": tuple((DIM_OF[dim], factor) for dim, factor in loops if factor > 1)
        for name, loops in spatial.items()
        if known[name].children_per_instance > 1
    }
    return Mapping(tuple(slots), units_of, cuts)


def _loops(place: str, directive: _Temporal | _Spatial) -> list[tuple[str, int]]:
    """(dim, factor) pairs in the order of the permutation, innermost first."""
    letters = "".join(DIM_OF)
    pairs = [re.fullmatch(r"([A-Za-z]+)=([0-9]+)", text) for text in directive.factors.split()]
    factors = {pair[1]: int(pair[2]) for pair in pairs if pair}
    if not all(pairs) or len(factors) < len(pairs) or set(factors) != set(letters) or min(factors.values()) < 1:
        raise ValueError(
            f"{place}.factors: found '{directive.factors}'; legal: a whole factor of at least 1 for each of "
            f"{', '.join(letters)}, as in 'R=1 S=1 P=2 Q=1 C=4 K=8 N=1'"
        )
    if sorted(directive.permutation) != sorted(letters):
        raise ValueError(
            f"{place}.permutation: found '{directive.permutation}'; legal: {letters} in any order, innermost first"
        )
    if isinstance(directive, _Spatial) and directive.split > len(letters):
        raise ValueError(f"{place}.split: found {directive.split}; legal: 0 to {len(letters)}")
    return [(dim, factors[dim]) for dim in directive.permutation]


def _require_bypass(place: str, directive: _Bypass, level: Level) -> None:
    stated = sorted(directive.keep + directive.bypass)
    if stated != sorted(OPERAND_OF) or set(directive.keep) != set(level.keeps):
        raise ValueError(
            f"{place}: keeps {', '.join(directive.keep) or 'nothing'} and bypasses "
            f"{', '.join(directive.bypass) or 'nothing'}; the level keeps {', '.join(level.keeps)}; legal: the same, "
            "and all others bypassed"
        )


def _require_bounds(
    case: _Case, temporal: dict[str, list[tuple[str, int]]], spatial: dict[str, list[tuple[str, int]]]
) -> None:
    for dim in DIM_OF:
        parts, total, bound = [], 1, getattr(case.layer, dim)
        for kind, entries in (("loops", temporal), ("units", spatial)):
            for name, loops in entries.items():
                factor = dict(loops)[dim]
                total *= factor
                if factor > 1:
                    parts.append(f"{factor} ({kind} of {name})")
        if total != bound:
            raise ValueError(
                f"mapping: layer {case.layer_name}, dimension {dim}: factors {' x '.join(parts) or '1'} make {total}; "
                f"its bound is {bound}; legal: factors that multiply to the bound"
            )


def _spell(loops: Sequence[tuple[str, int]]) -> str:
    return " x ".join(f"{dim} {factor}" for dim, factor in loops if factor > 1)


def counts_of(case: TimeloopCase) -> dict[tuple[str, str], Counts]:
    """What we count for a case, per (level, tensor)."""
    nest = nest_of(case.layer_name, case.shape, case.mapping, case.machine)
    counts = timeloop_counts(nest, case.shape, case.machine)
    tensor_of = {operand: tensor for tensor, operand in OPERAND_OF.items()}
    found = {}
    for (operand, m), count in counts.items():
        found[case.machine.memories[case.machine.levels(operand)[m]].name, tensor_of[operand]] = count
    return found


def _require_room(case: TimeloopCase, counts: dict[tuple[str, str], Counts]) -> None:
    for level in case.levels:
        tiles = {tensor: int(counts[level.name, tensor].tile) for tensor in OPERAND_OF if tensor in level.keeps}
        if level.capacity_words is not None and sum(tiles.values()) > level.capacity_words:
            spelled = " + ".join(f"{tensor} {words}" for tensor, words in tiles.items())
            raise ValueError(
                f"mapping: layer {case.layer_name}, level {level.name}: tiles of {spelled} = {sum(tiles.values())} "
                f"words overfill its capacity of {level.capacity_words}; legal: smaller factors inside the level"
            )


def _require_answers(case: _Case) -> None:
    legal = {(level.name, tensor) for level in case.levels for tensor in level.keeps}
    found = [(result.level, result.tensor) for result in case.expected.per_level_tensor]
    for level, tensor in found:
        if (level, tensor) not in legal or found.count((level, tensor)) > 1:
            raise ValueError(f"expected.per_level_tensor: {tensor} of {level}; legal: what `levels` keep, each once")
    for level, tensor in sorted(legal - set(found)):
        raise ValueError(f"expected.per_level_tensor: {tensor} of {level} missing; add it, the level keeps it")
    names = {"MACC", *(level.name for level in case.levels)}
    if set(case.expected.level_cycles) != names:
        odd = sorted(set(case.expected.level_cycles) ^ names)
        raise ValueError(f"expected.level_cycles: {odd[0]}; legal: one entry for each of {', '.join(sorted(names))}")
