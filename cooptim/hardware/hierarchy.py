"""A processor as its MAC array and memories: what mappings of any depth are priced on.

Level 0 of an operand is the memory nearest the MACs that lists it; its levels are the memories that list it, in the
order of `Hierarchy.memories`. A memory is replicated once for every unit of the array dimensions that no memory of the
operand up to it serves. Directions are seen from a memory, 'low' towards the MACs, 'high' outward.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

DIRECTIONS: tuple[str, ...] = ("read_to_low", "write_from_low", "read_to_high", "write_from_high")
PORT_KINDS: tuple[str, ...] = ("read", "write", "read_write")
BUFFERING: tuple[str, ...] = ("room", "always", "never")
_STATIC = {"static": True}

Leaf = Float[Array, ""] | float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Port:
    """One port of a memory: `bw_max_bits` a cycle and an access; transfers are rounded up to `bw_min_bits`.

    Attributes:
      serves: (operand, direction) pairs that share the port.
      nominal_bits: width at which the memory's energies of an access hold; they grow in proportion to the width. None:
        at any width.
      limits_bits: (least, largest) width that can be built, in steps of `bw_min_bits`; None: the width is given.
      area_mm2_per_bit: of its width.
    """

    name: str = dataclasses.field(metadata=_STATIC)
    kind: str = dataclasses.field(metadata=_STATIC)
    serves: tuple[tuple[str, str], ...] = dataclasses.field(metadata=_STATIC)
    bw_max_bits: Leaf
    bw_min_bits: Leaf
    nominal_bits: Leaf | None = None
    limits_bits: tuple[Leaf, Leaf] | None = None
    area_mm2_per_bit: Leaf = 0.0

    def width_scale(self) -> Leaf:
        """Energy of an access at the present width over that at `nominal_bits`."""
        return 1.0 if self.nominal_bits is None else self.bw_max_bits / self.nominal_bits


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Memory:
    """One memory; all numbers are of one instance.

    Attributes:
      operands: those it holds, of W, I, O; several share it.
      served_dims: array dimensions that one instance serves (it multicasts to them and reduces over them).
      double_buffered: 'room' (where half of it, or the rest of it, is free), 'always' (then half of it can be used for
        tiles) or 'never'.
      size_bits: capacity; inf for one without limit.
      read_pj, write_pj: energy of one access of `bw_max_bits` of the port, at `nominal_bits` of capacity.
      nominal_bits: size at which the energies hold; they grow as (size / nominal)^size_exponent.
      size_exponent: 0.5 is the square-root law, 0 a constant energy.
      size_table: (bits, energy) points, rising; where given, energies follow it, linear between its points, instead.
      min_bits, max_bits, step_bits: what can be built; equal min and max for a memory of given size.
      area_mm2_per_bit, leakage_mw_per_bit: the price of capacity besides energy.
    """

    name: str = dataclasses.field(metadata=_STATIC)
    operands: tuple[str, ...] = dataclasses.field(metadata=_STATIC)
    served_dims: tuple[str, ...] = dataclasses.field(metadata=_STATIC)
    double_buffered: str = dataclasses.field(metadata=_STATIC)
    ports: tuple[Port, ...]
    size_bits: Leaf
    read_pj: Leaf
    write_pj: Leaf
    nominal_bits: Leaf
    size_exponent: Leaf
    min_bits: Leaf
    max_bits: Leaf
    step_bits: Leaf
    area_mm2_per_bit: Leaf
    leakage_mw_per_bit: Leaf
    size_table: tuple[tuple[Leaf, Leaf], ...] = ()

    def port(self, operand: str, direction: str) -> Port:
        """The port that serves an operand in a direction; ValueError when none does."""
        for port in self.ports:
            if (operand, direction) in port.serves:
                return port
        raise ValueError(
            f"memory {self.name}: no port serves {operand} {direction}; add the pair to the `serves` of one of "
            f"{', '.join(p.name for p in self.ports)}"
        )

    def access_pj(self, operand: str, direction: str) -> Leaf:
        """Energy of one access of an operand in a direction, at the present size and width of port."""
        cost = self.read_pj if direction.startswith("read") else self.write_pj
        found: Leaf = cost * self.access_scale() * self.port(operand, direction).width_scale()
        return found

    def access_scale(self) -> Leaf:
        """Energy of an access at the present size over that at `nominal_bits`; 1 at nominal, also when unlimited."""
        if isinstance(self.size_bits, float) and (math.isinf(self.size_bits) or self.size_bits == self.nominal_bits):
            return 1.0
        if self.size_table:
            xp = (
                jnp if any(isinstance(x, jax.Array) for x in jax.tree.leaves((self.size_bits, self.size_table))) else np
            )
            sizes, energies = (xp.asarray(column) for column in zip(*self.size_table, strict=True))
            now, then = (xp.interp(size, sizes, energies) for size in (self.size_bits, self.nominal_bits))
            return now / then
        scale: Leaf = (self.size_bits / self.nominal_bits) ** self.size_exponent
        return scale


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hierarchy:
    """The MAC array and its memories, nearest the MACs first.

    Attributes:
      array: (dimension, units) pairs; MACs = their product.
      systolic_dims: dimensions along which operands hop one unit a cycle.
      operands: which operand lives in which memories follows from `memories`.
      mac_pj: energy of one multiply-accumulate.
      clock_ghz: cycles per ns.
      array_limits: (least, largest, step) of each dimension's size that can be built; empty: the sizes are given.
      mac_area_mm2, mac_leakage_mw: of one unit of the array.
    """

    name: str = dataclasses.field(metadata=_STATIC)
    array: tuple[tuple[str, int], ...] = dataclasses.field(metadata=_STATIC)
    systolic_dims: tuple[str, ...] = dataclasses.field(metadata=_STATIC)
    memories: tuple[Memory, ...]
    mac_pj: Leaf
    clock_ghz: Leaf
    array_limits: tuple[tuple[int, int, int], ...] = dataclasses.field(default=(), metadata=_STATIC)
    mac_area_mm2: Leaf = 0.0
    mac_leakage_mw: Leaf = 0.0

    @property
    def array_dims(self) -> tuple[str, ...]:
        """Names of the array dimensions, in order."""
        return tuple(name for name, _ in self.array)

    @property
    def units(self) -> int:
        """MACs of the array."""
        return math.prod(size for _, size in self.array)

    def levels(self, operand: str) -> tuple[int, ...]:
        """Indices of the operand's memories, nearest the MACs first."""
        return tuple(i for i, memory in enumerate(self.memories) if operand in memory.operands)

    def spread(self, operand: str) -> tuple[tuple[int, ...], ...]:
        """Array dimensions (indices) first served by each level of the operand, then those that none serves."""
        left = list(range(len(self.array)))
        found = []
        for index in self.levels(operand):
            served = {self.array_dims.index(name) for name in self.memories[index].served_dims}
            found.append(tuple(a for a in left if a in served))
            left = [a for a in left if a not in served]
        return (*found, tuple(left))


def require_paths(machine: Hierarchy) -> None:
    """Raises ValueError unless every operand has a path from the outermost memory to the MACs, and ports along it."""
    outermost = len(machine.memories) - 1
    for operand in ("W", "I", "O"):
        levels = machine.levels(operand)
        if not levels or levels[-1] != outermost:
            held = ", ".join(machine.memories[i].name for i in levels) or "no memory"
            last = machine.memories[outermost].name if machine.memories else "a memory"
            raise ValueError(
                f"machine {machine.name}: operand {operand} has no path to the outermost memory; it lives in {held}; "
                f"list {operand} under the operands of {last}"
            )
        for place, index in enumerate(levels):
            memory = machine.memories[index]
            low = ("read_to_low", "write_from_low") if operand == "O" else ("read_to_low",)
            high = ("read_to_high", "write_from_high") if operand == "O" else ("write_from_high",)
            for direction in (*low, *(high if place < len(levels) - 1 else ())):
                memory.port(operand, direction)
