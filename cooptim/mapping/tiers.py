"""Tiers of a hierarchy: where even cuts lie, one a tier for all operands.

The space of the relaxations. The temporal loops of a layer fall into one slot a tier, innermost first: slot t holds the
loops that run inside the tiles of tier t and outside those of tier t - 1. Within a slot one operand is stationary: the
loops that leave its tile where it is stand innermost, all others follow; the order within either group moves nothing. A
memory cuts its operands at its tier; an operand without a memory in a tier passes it by.
"""

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.workload import OPERANDS

STATIONARITIES: tuple[str, ...] = OPERANDS  # W, I, O: index of a slot's choice


def memory_tiers(machine: Hierarchy) -> tuple[int, ...]:
    """Tier of each memory: one more than the outermost below it that holds one of its operands; the last one's is last.

    Operands with memories of their own side by side (registers of W, I and O) share a tier.
    """
    found: list[int] = []
    for i, memory in enumerate(machine.memories):
        below = [found[j] for j in range(i) if set(machine.memories[j].operands) & set(memory.operands)]
        found.append(1 + max(below, default=-1))
    if found:
        found[-1] = max(found)
    return tuple(found)


def operand_tiers(machine: Hierarchy) -> dict[str, tuple[int, ...]]:
    """Per operand the tier of each of its levels, rising."""
    tiers = memory_tiers(machine)
    return {operand: tuple(tiers[i] for i in machine.levels(operand)) for operand in OPERANDS}


def tier_count(machine: Hierarchy) -> int:
    """Number of tiers, the outermost memory's included."""
    return 1 + max(memory_tiers(machine))
