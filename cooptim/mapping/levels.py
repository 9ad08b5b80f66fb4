"""Mappings from the loops that each operand has in each of its levels, as other tools and files write them."""

from collections.abc import Mapping as AbstractMapping
from collections.abc import Sequence

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.nest import Mapping
from cooptim.workload import OPERANDS

Loops = Sequence[tuple[str, int]]


def mapping_from_levels(
    spatial: AbstractMapping[str, Loops], temporal: AbstractMapping[str, Sequence[Loops]], machine: Hierarchy
) -> Mapping:
    """The mapping whose operands have these loops in their levels, lowest level and innermost loop first.

    Raises ValueError where an operand has other levels than the machine, or the operands another order of loops.
    """
    orders: dict[str, list[tuple[str, int]]] = {}
    cuts: dict[str, tuple[int, ...]] = {}
    for operand in OPERANDS:
        levels = temporal[operand]
        names = [machine.memories[i].name for i in machine.levels(operand)]
        if len(levels) != len(names):
            raise ValueError(
                f"temporal.{operand}: {len(levels)} levels; {machine.name} holds {operand} in {len(names)}: "
                f"{', '.join(names)}; give one list of loops a level"
            )
        orders[operand] = [(dim, size) for level in levels for dim, size in level]
        cuts[operand] = tuple(sum(map(len, levels[: m + 1])) for m in range(len(levels)))
    for operand in ("I", "O"):
        if orders[operand] != orders["W"]:
            raise ValueError(
                f"temporal.{operand}: loops {_spell(orders[operand])}; W has {_spell(orders['W'])}; legal: one order "
                "of loops, which operands only cut differently"
            )
    return Mapping(tuple(orders["W"]), {axis: tuple(pairs) for axis, pairs in spatial.items()}, cuts)


def _spell(loops: Loops) -> str:
    return " ".join(f"{dim}{size}" for dim, size in loops) or "none"
