"""Ours beside ZigZag's, quantity by quantity.

Counts, tiles, periods and cycles are equal or they do not hold; energies and filled fractions to 1e-9, relative. Not
compared are `element_moves`, which ZigZag does not price, and `temporal_after_merge`, which shows in every period.
"""

import numpy as np

from cooptim.hardware.hierarchy import DIRECTIONS, Hierarchy
from cooptim.mapping.nest import LayerShape, Mapping, nest_of
from cooptim.mapping.price import Price, price
from cooptim.mapping.rules import ZIGZAG
from cooptim.mapping.stalls import tile_bits
from cooptim.mapping.transfers import distinct
from cooptim.validate.compare import GoldenRow
from cooptim.validate.zigzag import LevelResult, Results, ZigzagCase
from cooptim.workload import OPERANDS

ENERGY, CYCLES = "energy_total_pj", "latency.total_cycles"  # what a summary of a case shows
_RELATIVE = 1e-9  # of energies and of fractions of a memory
_PER_DIRECTION = (
    "accesses",
    "elements_per_period",
    "period_cycles",
    "period_count",
    "precision_bits",
    "transfer_cycles_per_period",
    "allowed_cycles_per_period",
)


def case_rows(case: ZigzagCase) -> list[GoldenRow]:
    """Every compared quantity of one case."""
    return result_rows(case.id, case.machine, case.shape, case.mapping, case.results)


def result_rows(
    name: str, machine: Hierarchy, shape: LayerShape, mapping: Mapping, expected: Results
) -> list[GoldenRow]:
    """What ZigZag answered for a mapping beside our price of it under ZigZag's rules.

    Raises ValueError for a mapping that the machine cannot carry out.
    """
    priced = price(nest_of(name, shape, mapping, machine), shape, machine, ZIGZAG)
    rows: list[GoldenRow] = []

    def row(quantity: str, theirs: float, ours: object, tolerance: float = 0.0) -> None:
        rows.append(GoldenRow(name, quantity, float(theirs), float(np.asarray(ours)), tolerance))

    row(ENERGY, expected.energy_total_pj, priced.energy_pj, _RELATIVE)
    row("mac_energy_pj", expected.mac_energy_pj, priced.mac_pj, _RELATIVE)
    row("memory_energy_pj", expected.memory_energy_pj, sum(priced.transfer_pj.values()), _RELATIVE)
    row("mac_count", expected.mac_count, shape.macs)
    for quantity, ours in _latency(priced).items():
        row(f"latency.{quantity}", getattr(expected.latency, quantity), ours)
    for port, theirs in expected.latency.stall_per_port.items():
        memory_name, _, port_name = port.rpartition("/")
        row(f"latency.stall_per_port.{port}", theirs, priced.cycles.stall_per_port.get((memory_name, port_name), 0.0))
    filled = _filled(priced, shape, machine)
    for memory, theirs in expected.memory_utilization.items():
        row(f"memory_utilization.{memory}", theirs, filled[memory], _RELATIVE)
    for operand in OPERANDS:
        whole = distinct([float(bound) for bound in shape.bounds], operand, shape, ZIGZAG, np)
        row(f"tensor_elements.{operand}", expected.tensor_elements[operand], whole)  # type: ignore[index]
        for m, level in enumerate(expected.levels[operand]):  # type: ignore[index]
            place = f"levels.{operand}[{m}]"
            for quantity, theirs, ours in _level(level, operand, m, priced, shape):
                row(f"{place}.{quantity}", theirs, ours)
            energy = sum(pj for key, pj in priced.transfer_pj.items() if key[:2] == (operand, m))
            row(f"{place}.energy_pj", level.energy_pj, energy, _RELATIVE)
    return rows


def _latency(priced: Price) -> dict[str, object]:
    cycles = priced.cycles
    return {
        "total_cycles": cycles.total,
        "ideal_cycles": cycles.ideal,
        "temporal_cycles": cycles.temporal,
        "stall_cycles": cycles.stall,
        "computation_cycles": cycles.temporal + cycles.stall,
        "onload_cycles": cycles.onload,
        "offload_cycles": cycles.offload,
        "drain_cycles": cycles.drain,
    }


def _level(
    expected: LevelResult, operand: str, m: int, priced: Price, shape: LayerShape
) -> list[tuple[str, float, object]]:
    """(quantity, theirs, ours) of one operand's level, but for its energy."""
    level = priced.traffic.levels[operand][m]
    found: list[tuple[str, float, object]] = [
        ("instances_used", expected.instances_used, level.instances),
        ("tile_elements_per_instance", expected.tile_elements_per_instance, level.elements),
        ("tile_bits_per_instance", expected.tile_bits_per_instance, tile_bits(priced.traffic, operand, m, shape, np)),
        ("double_buffered", expected.double_buffered, priced.cycles.double_buffered[operand, m]),
    ]
    for direction in DIRECTIONS:
        key = (operand, m, direction)
        transfer = priced.traffic.transfers.get(key)
        moved: tuple[object, ...] = (0.0,) * 5
        if transfer is not None and bool(np.asarray(transfer.active)):
            moved = (priced.accesses[key], transfer.elements, transfer.period, transfer.count, transfer.bits)
        # Cycles see whole units, under which a transfer of partial sums may be idle that the energy counts.
        ours = (*moved, priced.cycles.needed.get(key, 0.0), priced.cycles.allowed.get(key, 0.0))
        for quantity, value in zip(_PER_DIRECTION, ours, strict=True):
            found.append((f"{quantity}.{direction}", getattr(expected, quantity)[direction], value))
    return found


def _filled(priced: Price, shape: LayerShape, machine: Hierarchy) -> dict[str, float]:
    """Filled part of the whole of each memory, also of one that keeps half of itself for the next tile."""
    found = dict.fromkeys((memory.name for memory in machine.memories), 0.0)
    for operand in OPERANDS:
        for m, index in enumerate(machine.levels(operand)):
            memory = machine.memories[index]
            bits = tile_bits(priced.traffic, operand, m, shape, np)
            found[memory.name] += float(np.asarray(bits)) / float(np.asarray(memory.size_bits))
    return found
