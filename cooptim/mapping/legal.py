"""Whether a mapping fits: the tiles of all operands against the size of each memory."""

import math

import numpy as np

from cooptim.hardware.hierarchy import Hierarchy, Memory
from cooptim.mapping.nest import LayerShape
from cooptim.mapping.price import Price
from cooptim.mapping.stalls import tile_bits
from cooptim.workload import OPERANDS


def usable_bits(memory: Memory) -> float:
    """Bits that tiles may fill: half of a memory that is always double-buffered."""
    return float(memory.size_bits) / (2.0 if memory.double_buffered == "always" else 1.0)


def demand_bits(priced: Price, shape: LayerShape, machine: Hierarchy) -> dict[str, dict[str, float]]:
    """Bits that each operand's tile takes in one instance of each memory that holds it."""
    found: dict[str, dict[str, float]] = {memory.name: {} for memory in machine.memories}
    for operand in OPERANDS:
        for m, index in enumerate(machine.levels(operand)):
            bits = tile_bits(priced.traffic, operand, m, shape, np)
            found[machine.memories[index].name][operand] = float(bits)
    return found


def require_legal(name: str, priced: Price, shape: LayerShape, machine: Hierarchy) -> None:
    """Raises ValueError for the first memory, from the MACs out, that the tiles of one mapping overfill.

    Args:
      name: of the layer, for the message. priced: of one mapping, no batch.
    """
    demand = demand_bits(priced, shape, machine)
    for memory in machine.memories:
        held, room = demand[memory.name], usable_bits(memory)
        total = math.fsum(held.values())
        if total <= room:
            continue
        parts = ", ".join(f"{operand} {bits:.0f}" for operand, bits in held.items())
        halved = (
            f" (half of {float(memory.size_bits):.0f}: double-buffered)" if memory.double_buffered == "always" else ""
        )
        raise ValueError(
            f"{name}: memory {memory.name} must hold {total:.0f} bit ({parts}); legal: at most {room:.0f}{halved}; "
            f"{_lever(memory, held, total)}"
        )


def _lever(memory: Memory, held: dict[str, float], total: float) -> str:
    """What brings the demand down, or the bound up."""
    most = max(held, key=lambda operand: held[operand])
    moved = f"move loops of {most} outward past {memory.name}, or narrow its data"
    needed = total * (2.0 if memory.double_buffered == "always" else 1.0)
    if float(memory.max_bits) >= needed:
        return f"{moved}, or build {memory.name} with {needed:.0f} bit (at most {float(memory.max_bits):.0f})"
    return moved
