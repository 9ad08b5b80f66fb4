"""All that the energy of a mapping asks of its loop order: which loops lie inside each cut.

The temporal loops of a layer are its prime factors. A set of them is a point of the lattice of divisors, one axis a
prime of a dim. A cut of an operand at a point v costs what its link then moves: the tile under v every prod(v) cycles;
whether partial sums pass depends on v alone. Irrelevant loops right outside the cut keep the tile, but a cut moved out
over them has the same tile and counts them: hence the cheapest place of each cut carries the true cost, and

    the least energy of all loop orders and all uneven cuts = the cheapest chain of points, one for each cut.

Everything holds for any number of levels; what a chain does not see are stalls (they depend on the order between cuts).
"""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.nest import IRRELEVANT, LayerShape
from cooptim.mapping.rules import Rules
from cooptim.mapping.transfers import (
    Level,
    accesses,
    distinct,
    input_transfers,
    output_transfers,
    rounded_instances,
    tiles_fed,
    units_on,
)
from cooptim.workload import OPERANDS
from cooptim.workload.dims import DIMS

MAX_POINTS = 200_000


def prime_factors(n: int) -> list[int]:
    """Prime factors of n, smallest first, repeated."""
    found, p = [], 2
    while p * p <= n:
        while n % p == 0:
            found.append(p)
            n //= p
        p += 1
    return found + [n] if n > 1 else found


@dataclasses.dataclass(frozen=True)
class Lattice:
    """The divisors of the temporal bounds of one layer.

    Attributes:
      axes: (dim index, prime) of each axis. shape: its length, one more than the prime's power.
      extents: extent of each dim at every point [dim, *shape]; product: their product.
    """

    axes: tuple[tuple[int, int], ...]
    shape: tuple[int, ...]
    extents: Float[np.ndarray, "..."]
    product: Float[np.ndarray, "..."]

    @property
    def points(self) -> int:
        """Number of divisors."""
        return math.prod(self.shape)


def lattice(name: str, temporal: tuple[int, ...]) -> Lattice:
    """The lattice of these temporal bounds (in the order of DIMS); ValueError above MAX_POINTS."""
    axes, shape = [], []
    for dim, bound in enumerate(temporal):
        factors = prime_factors(bound)
        for prime in sorted(set(factors)):
            axes.append((dim, prime))
            shape.append(factors.count(prime) + 1)
    if not axes:  # all of the layer is unrolled: one point, on an axis without length
        axes, shape = [(0, 1)], [1]
    if math.prod(shape) > MAX_POINTS:
        spelled = ", ".join(f"{d} {b}" for d, b in zip(DIMS, temporal, strict=True) if b > 1)
        raise ValueError(
            f"{name}: {math.prod(shape)} sets of loops ({spelled}); at most {MAX_POINTS} are searched; unroll more"
        )
    extents = np.ones((len(DIMS), *shape))
    for i, (dim, prime) in enumerate(axes):
        powers = float(prime) ** np.arange(shape[i])
        extents[dim] = extents[dim] * powers.reshape([-1 if j == i else 1 for j in range(len(shape))])
    return Lattice(tuple(axes), tuple(shape), extents, np.prod(extents, axis=0))


@dataclasses.dataclass(frozen=True)
class Cut:
    """One cut to place: of an operand, at a level (-1: the run through which it stays at the MACs).

    Attributes:
      memory: index of the memory whose tile it fixes; None for -1.
      energy_pj: of the link outside it, at each point; inf where the cut may not lie.
      tile_bits: footprint in that memory.
      late_cycles: stall of the link alone were its lower level double-buffered.
    """

    operand: str
    level: int
    memory: int | None
    energy_pj: Float[np.ndarray, "..."]
    tile_bits: Float[np.ndarray, "..."]
    late_cycles: Float[np.ndarray, "..."]


@dataclasses.dataclass(frozen=True)
class CutTable:
    """The cuts of every operand, innermost first, and what no cut changes."""

    lattice: Lattice
    cuts: dict[str, tuple[Cut, ...]]
    fixed_pj: float
    cycles: float
    drain: float


def partial_at(
    grid: Lattice, shape: LayerShape, unroll: Any, axes: list[int], temporal: tuple[int, ...]
) -> tuple[Any, Any]:
    """(whether outputs cut at a point leave it unfinished: irrelevant loops or units outside; how often they pass)."""
    left = math.prod(temporal[i] for i in IRRELEVANT["O"])
    inside = np.prod([grid.extents[i] for i in IRRELEVANT["O"]], axis=0)
    units = units_on(unroll, axes)
    spatial = any(units[i] > 1 for i in IRRELEVANT["O"])
    return (inside < left) | spatial, left / inside


def cut_table(
    name: str,
    shape: LayerShape,
    machine: Hierarchy,
    rules: Rules,
    unroll: tuple[tuple[float, ...], ...],
    whole: tuple[tuple[float, ...], ...],
    span: tuple[float, ...],
) -> CutTable:
    """Energy, footprint and cycles of every cut at every point, for a given spatial unrolling.

    Args:
      unroll, whole, span: as in `Nest`.

    Raises ValueError above MAX_POINTS points.
    """
    covered = [math.prod(row[i] for row in unroll) for i in range(len(DIMS))]
    temporal = tuple(round(shape.bounds[i] / covered[i]) for i in range(len(DIMS)))
    grid = lattice(name, temporal)
    build = CutBuilder(grid, shape, machine, rules, unroll, whole, temporal)
    fixed = float(shape.macs * machine.mac_pj) + build.fixed_outputs()
    cuts = {operand: tuple(build.cuts(operand)) for operand in OPERANDS}
    systolic = [machine.array_dims.index(d) for d in machine.systolic_dims]
    drain = sum(max(span[a] - 1.0, 0.0) for a in systolic)
    return CutTable(grid, cuts, fixed, float(math.prod(temporal)), drain)


@dataclasses.dataclass(frozen=True)
class CutBuilder:
    """Tiles, links and energies of cuts at every point of a lattice, for one unrolling (as in `Nest`)."""

    grid: Lattice
    shape: LayerShape
    machine: Hierarchy
    rules: Rules
    unroll: Any
    whole: Any
    temporal: tuple[int, ...]

    def level(self, operand: str, m: int, unroll: Any, partial: Any, visits: Any = 1.0) -> Level:
        """Level m of an operand when its cut lies at each point."""
        spread = self.machine.spread(operand)
        inside = units_on(unroll, [a for s in spread[: m + 1] for a in s])
        outside = units_on(unroll, [a for s in spread[m + 1 :] for a in s])
        extents = [u * e for u, e in zip(inside, self.grid.extents, strict=True)]
        bits = {"W": self.shape.w_bits, "I": self.shape.i_bits, "O": self.shape.psum_bits}[operand]
        return Level(
            elements=distinct(extents, operand, self.shape, self.rules, np),
            bits=bits,
            period=self.grid.product,
            instances=rounded_instances(math.prod(outside), np),
            outer_moving=1.0,
            outer_idle=1.0,
            partial=partial,
            visits=visits,
        )

    def fed(self, operand: str, m: int, unroll: Any) -> float:
        """Tiles of the level below that an instance of level m feeds."""
        spread = self.machine.spread(operand)
        return float(tiles_fed(unroll, spread, operand, self.shape, self.rules, np)[m])

    def link(self, operand: str, m: int, unroll: Any) -> tuple[tuple[Level, ...], dict[Any, Any], Any]:
        """(levels, transfers of the link between m and m+1, partial sums pass it) with the cut of m at each point."""
        spread = self.machine.spread(operand)
        outside = [a for s in spread[m + 2 :] for a in s]
        partial, visits = False, 1.0
        if operand == "O":
            partial, visits = partial_at(self.grid, self.shape, unroll, outside, self.temporal)
        low = self.level(operand, m, unroll, False)
        high = dataclasses.replace(self.level(operand, m + 1, unroll, partial, visits), period=self.cycles)
        levels = (*([low] * (m + 1)), high, *([high] * (len(spread) - 1 - m - 2)))
        make = output_transfers if operand == "O" else input_transfers
        fed = self.fed(operand, m + 1, unroll)
        down = make(levels, m, 1.0, 1.0, self.cycles, self.shape, self.rules, np)
        up = make(levels, m + 1, fed, 1.0, self.cycles, self.shape, self.rules, np)
        found = {(operand, m, d): t for d, t in down.items() if d.endswith("high")}
        found |= {(operand, m + 1, d): t for d, t in up.items() if d.endswith("low")}
        return levels, found, partial

    @property
    def cycles(self) -> float:
        """Temporal steps of the layer."""
        return float(math.prod(self.temporal))

    def _energy(self, transfers: dict[Any, Any], levels: tuple[Level, ...]) -> Any:
        total: Any = 0.0
        for key, transfer in transfers.items():
            operand, m, direction = key
            memory = self.machine.memories[self.machine.levels(operand)[m]]
            count = accesses(transfer, key, levels[m], self.machine, self.rules)
            total = total + count * memory.access_pj(operand, direction)
        return total

    def fixed_outputs(self) -> float:
        """Energy of the link between the MACs and the first memory of the outputs: no cut changes it."""
        spread = self.machine.spread("O")
        outside = [a for s in spread[1:] for a in s]
        grid = dataclasses.replace(self.grid, extents=np.ones(len(DIMS)), product=np.ones(()))
        partial, visits = partial_at(grid, self.shape, self.unroll, outside, self.temporal)
        inner = dataclasses.replace(self, grid=grid).level("O", 0, self.unroll, partial, visits)
        moved = output_transfers(
            (inner, inner), 0, self.fed("O", 0, self.unroll), 1.0, self.cycles, self.shape, self.rules, np
        )
        low = {("O", 0, d): t for d, t in moved.items() if d.endswith("low")}
        return float(self._energy(low, (inner, inner)))

    def _stay(self, operand: str) -> Cut:
        """The run through which an input stays at the MACs: points of irrelevant loops only."""
        grid = self.grid
        moving = [i for i in range(len(DIMS)) if i not in IRRELEVANT[operand]]
        still = np.prod([grid.extents[i] for i in moving], axis=0) == 1
        if not self.rules.operand_stays:
            still = still & (grid.product == 1)
        level = self.level(operand, 0, self.unroll, False)
        fed = self.fed(operand, 0, self.unroll)
        levels = (level, level)
        low = input_transfers(levels, 0, fed, grid.product, self.cycles, self.shape, self.rules, np)["read_to_low"]
        energy = self._energy({(operand, 0, "read_to_low"): low}, levels)
        whole = input_transfers(
            (self.level(operand, 0, self.whole, False),) * 2, 0, self.fed(operand, 0, self.whole), grid.product,
            self.cycles, self.shape, self.rules, np,
        )["read_to_low"]  # fmt: skip
        late = self._late({(operand, 0, "read_to_low"): whole})
        return Cut(operand, -1, None, np.where(still, energy, np.inf), np.zeros(grid.shape), late)

    def _needed(self, key: Any, transfer: Any) -> Any:
        operand, m, direction = key
        port = self.machine.memories[self.machine.levels(operand)[m]].port(operand, direction)
        return np.ceil(transfer.elements * transfer.bits / port.bw_max_bits)

    def _late(self, transfers: dict[Any, Any]) -> Any:
        late: Any = np.zeros(self.grid.shape)
        for key, transfer in transfers.items():
            stall = (self._needed(key, transfer) - transfer.period) * (transfer.count - 1)
            late = np.maximum(late, np.where(transfer.active, stall, 0.0))
        return late

    def cuts(self, operand: str) -> list[Cut]:
        """Every cut of an operand, innermost first."""
        places = self.machine.levels(operand)
        found = [] if operand == "O" else [self._stay(operand)]
        for m in range(len(places) - 1):
            levels, transfers, partial = self.link(operand, m, self.unroll)
            energy = np.broadcast_to(self._energy(transfers, levels), self.grid.shape)
            memory = self.machine.memories[places[m]]
            bits = np.where(partial, self.shape.psum_bits, self.shape.o_bits) if operand == "O" else levels[m].bits
            tile = np.broadcast_to(levels[m].elements * bits, self.grid.shape)
            room = memory.size_bits / (2.0 if memory.double_buffered == "always" else 1.0)
            _, whole, _ = self.link(operand, m, self.whole)
            late = self._late(whole)
            found.append(Cut(operand, m, places[m], np.where(tile <= room, energy, np.inf), tile, late))
        return found


def points_below(mask: Bool[np.ndarray, "..."], point: tuple[int, ...]) -> Bool[np.ndarray, "..."]:
    """The part of a mask at or below a point."""
    found = np.zeros_like(mask)
    window = tuple(slice(0, i + 1) for i in point)
    found[window] = mask[window]
    return found
