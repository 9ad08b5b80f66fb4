"""Energy and latency of a mapping on a hierarchy: traffic times prices."""

import dataclasses
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Bool

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.nest import LayerShape, Nest
from cooptim.mapping.rules import HARDWARE, Rules
from cooptim.mapping.slots import slots_of
from cooptim.mapping.stalls import Cycles, cycles_of, used_share
from cooptim.mapping.transfers import Key, Traffic, accesses, traffic


@dataclasses.dataclass(frozen=True)
class Price:
    """What one mapping costs.

    Attributes:
      energy_pj: MACs and memory accesses; mac_pj and per-transfer energies add up to it.
      accesses: of a port's width, per (operand, level, direction).
      used_share: filled part of each memory; a mapping is legal where all are at most 1.
    """

    energy_pj: Any
    mac_pj: Any
    transfer_pj: dict[Key, Any]
    accesses: dict[Key, Any]
    cycles: Cycles
    used_share: dict[str, Any]
    traffic: Traffic

    def fits(self, n: int) -> Bool[np.ndarray, "n"]:
        """Whether no memory is overfilled, of each mapping of a batch of n."""
        found = np.ones(n, dtype=bool)
        for share in self.used_share.values():
            found &= np.broadcast_to(share <= 1.0 + 1e-12, (n,))
        return found


def price(
    nest: Nest,
    shape: LayerShape,
    machine: Hierarchy,
    rules: Rules = HARDWARE,
    *,
    whole_units: bool = False,
    xp: ModuleType = np,
) -> Price:
    """Energy [pJ], accesses and cycles of a mapping, or of a batch of them in a trailing axis.

    Args:
      whole_units: the array divides the layer, so that fractional and whole unrolling are one and counted once.
    """
    slots = slots_of(nest, xp)
    moved = traffic(nest, shape, machine, rules, slots=slots, xp=xp)
    moved_whole = moved if whole_units else traffic(nest, shape, machine, rules, whole=True, slots=slots, xp=xp)
    counts, energies = {}, {}
    total = mac_pj = shape.macs * machine.mac_pj
    for key, transfer in moved.transfers.items():
        operand, m, direction = key
        memory = machine.memories[machine.levels(operand)[m]]
        counts[key] = accesses(transfer, key, moved.levels[operand][m], machine, rules, xp)
        energies[key] = counts[key] * memory.access_pj(operand, direction)
        total = total + energies[key]
    return Price(
        energy_pj=total,
        mac_pj=mac_pj,
        transfer_pj=energies,
        accesses=counts,
        cycles=cycles_of(nest, moved, moved_whole, shape, machine, xp),
        used_share=used_share(moved, shape, machine, xp),
        traffic=moved,
    )
