"""The numbers of a hierarchy that may be chosen: sides of the array, sizes of memories, widths of ports.

A machine file frees a number by giving it a least and a largest value. Capacity, sides and widths are paid for in area,
leakage and energy an access (`Memory.access_pj`).
"""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from cooptim.hardware.hierarchy import Hierarchy, Memory

Leaf = Float[Array, ""] | float
PortKey = tuple[str, str]  # memory, port


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Chip:
    """One choice of the free numbers.

    Attributes:
      sides: by array dimension. size_bits: by memory, of one instance. width_bits: by (memory, port).
    """

    sides: dict[str, Leaf]
    size_bits: dict[str, Leaf]
    width_bits: dict[PortKey, Leaf]


@dataclasses.dataclass(frozen=True)
class Range:
    """What can be built of one number: low, low + step, ... up to high."""

    low: float
    high: float
    step: float

    def snap(self, value: float, up: bool = True) -> float:
        """The least value that can be built at or above (the largest at or below) another, within the range."""
        last = math.floor((self.high - self.low) / self.step + 1e-9)
        steps = (value - self.low) / self.step
        place = math.ceil(steps - 1e-9) if up else math.floor(steps + 1e-9)
        return self.low + self.step * min(max(place, 0), last)

    def nearest(self, value: float) -> float:
        """The value nearest to another that can be built."""
        low, high = self.snap(value, up=False), self.snap(value)
        return low if value - low < high - value else high

    def holds(self, value: float) -> bool:
        """Whether a value can be built."""
        return math.isclose(self.snap(value), value, rel_tol=1e-9)


@dataclasses.dataclass(frozen=True)
class Ranges:
    """The range of every free number; keys as in `Chip`."""

    sides: dict[str, Range]
    size_bits: dict[str, Range]
    width_bits: dict[PortKey, Range]

    @property
    def free(self) -> bool:
        """Whether anything can be chosen."""
        return bool(self.sides or self.size_bits or self.width_bits)


def chip_ranges(machine: Hierarchy) -> Ranges:
    """What a machine's file leaves free."""
    sides = {
        name: Range(*(float(x) for x in limits))
        for name, limits in zip(machine.array_dims, machine.array_limits, strict=False)
        if limits[0] < limits[1]
    }
    sizes = {
        m.name: Range(float(m.min_bits), float(m.max_bits), float(m.step_bits))
        for m in machine.memories
        if float(m.min_bits) < float(m.max_bits)
    }
    widths = {
        (m.name, p.name): Range(float(p.limits_bits[0]), float(p.limits_bits[1]), float(p.bw_min_bits))
        for m in machine.memories
        for p in m.ports
        if p.limits_bits is not None and float(p.limits_bits[0]) < float(p.limits_bits[1])
    }
    return Ranges(sides, sizes, widths)


def chip_of(machine: Hierarchy) -> Chip:
    """The present values of a machine's free numbers."""
    ranges, memories = chip_ranges(machine), {m.name: m for m in machine.memories}
    ports = {(m.name, p.name): p for m in machine.memories for p in m.ports}
    return Chip(
        {name: float(size) for name, size in machine.array if name in ranges.sides},
        {name: memories[name].size_bits for name in ranges.size_bits},
        {key: ports[key].bw_max_bits for key in ranges.width_bits},
    )


def with_chip(machine: Hierarchy, chip: Chip) -> Hierarchy:
    """The machine with these sizes and widths, and with these sides where they are whole numbers (traced ones are
    passed on beside it)."""
    array = tuple(
        (name, size if isinstance(chip.sides.get(name, size), jax.Array) else int(chip.sides.get(name, size)))
        for name, size in machine.array
    )
    return dataclasses.replace(machine, array=array, memories=tuple(_rebuilt(m, chip) for m in machine.memories))


def _rebuilt(memory: Memory, chip: Chip) -> Memory:
    ports = tuple(
        dataclasses.replace(p, bw_max_bits=chip.width_bits.get((memory.name, p.name), p.bw_max_bits))
        for p in memory.ports
    )
    return dataclasses.replace(memory, ports=ports, size_bits=chip.size_bits.get(memory.name, memory.size_bits))


def instances(machine: Hierarchy, memory: Memory, sides: dict[str, Leaf]) -> Any:
    """Copies of a memory on the chip: one for every unit of the dimensions that it does not serve."""
    found: Any = 1.0
    for name, size in machine.array:
        if name not in memory.served_dims:
            found = found * sides.get(name, float(size))
    return found


def _on_chip(machine: Hierarchy) -> tuple[Memory, ...]:
    """All memories but those without limit."""
    return tuple(m for m in machine.memories if not (isinstance(m.size_bits, float) and math.isinf(m.size_bits)))


def _units(machine: Hierarchy, sides: dict[str, Leaf]) -> Any:
    found: Any = 1.0
    for name, size in machine.array:
        found = found * sides.get(name, float(size))
    return found


def chip_area_mm2(machine: Hierarchy, sides: dict[str, Leaf] | None = None) -> Any:
    """Area of array, memories and their ports [mm2]; memories without limit are off the chip.

    Args:
      sides: in place of the machine's; may be traced.
    """
    sides = sides or {}
    found = _units(machine, sides) * machine.mac_area_mm2
    for memory in _on_chip(machine):
        one = memory.size_bits * memory.area_mm2_per_bit
        for port in memory.ports:
            one = one + port.bw_max_bits * port.area_mm2_per_bit
        found = found + one * instances(machine, memory, sides)
    return found


def chip_leakage_mw(machine: Hierarchy, sides: dict[str, Leaf] | None = None) -> Any:
    """Leakage of array and memories [mW]; arguments as for `chip_area_mm2`."""
    sides = sides or {}
    found = _units(machine, sides) * machine.mac_leakage_mw
    for memory in _on_chip(machine):
        found = found + memory.size_bits * memory.leakage_mw_per_bit * instances(machine, memory, sides)
    return found


def snapped_chip(machine: Hierarchy, chip: Chip) -> Chip:
    """The chip with every size and width at the next that can be built, every side at the nearest."""
    ranges = chip_ranges(machine)

    return Chip(
        {k: ranges.sides[k].nearest(float(np.asarray(v))) for k, v in chip.sides.items()},
        {k: ranges.size_bits[k].snap(float(np.asarray(v))) for k, v in chip.size_bits.items()},
        {k: ranges.width_bits[k].snap(float(np.asarray(v))) for k, v in chip.width_bits.items()},
    )


def require_buildable(machine: Hierarchy, chip: Chip) -> None:
    """Raises ValueError that names the number, what was found and what can be built."""
    ranges = chip_ranges(machine)
    dotted = {".".join(key): value for key, value in chip.width_bits.items()}
    legal_widths = {".".join(key): kind for key, kind in ranges.width_bits.items()}
    for what, unit, values, legal in (
        ("side", "units", chip.sides, ranges.sides),
        ("size", "bit", chip.size_bits, ranges.size_bits),
        ("width", "bit", dotted, legal_widths),
    ):
        for name, value in values.items():
            kind = legal.get(name)
            if kind is None:
                raise ValueError(
                    f"machine {machine.name}: {what} of {name} is not free; give it a min and a max in the file, or "
                    "leave it out of the chip"
                )
            if not kind.holds(float(np.asarray(value))):
                raise ValueError(
                    f"machine {machine.name}: {what} of {name} is {float(np.asarray(value)):g} {unit}; legal: "
                    f"{kind.low:g} to {kind.high:g} in steps of {kind.step:g}"
                )
