"""Every even mapping of one layer as a row of look-ups: what moves, what is held, and for how long.

Space: that of `tiers`, for a given unrolling: a factor per slot and dim, a stationary operand per slot. The factors are
a chain of points v_0 <= v_1 <= ... of the lattice of divisors (`lattice`): v_t is what runs inside tier t.

A link starts at the first slot outside the tile below it. That tile stays while the loops of the slots from there out
are irrelevant: through the run at the start of a slot (which the slot's stationary operand decides), and on into the
next slot where all of the slot is irrelevant. Moving a cut out over irrelevant loops leaves its tile as it is and
lengthens its period by them, so all that a link moves and its tile holds is one look-up at the *kept point*: the cut's
point with its run added. Hence a row is one kept point a link, equal kept points are equal rows, and the numbers come
from the closed form of `transfers`, evaluated once at every point of the lattice.

Which run an operand has in a slot depends on the slot's factors and stationary operand alone. A stationary operand
whose runs are nowhere longer than another's (in the operands that a slot still keeps) never moves less: rows with it
are equal to or dominated by rows without (`Space.rows`, `every` = False).
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.even import slot_orders
from cooptim.mapping.even_tables import Column, Link, Tile, even_tables
from cooptim.mapping.lattice import CutBuilder, Lattice, lattice, prime_factors
from cooptim.mapping.nest import IRRELEVANT, LayerShape, Nest
from cooptim.mapping.rules import Rules
from cooptim.mapping.tiers import tier_count
from cooptim.workload import OPERANDS
from cooptim.workload.dims import DIMS

MAX_TIERS = 3
MAX_CHAINS = 30_000_000  # of points, streamed; about 1 CPU-min
CHUNK = 1 << 17  # chains at once; 40 MB


@dataclasses.dataclass(frozen=True)
class Rows:
    """Mappings side by side: kept point of each link, cuts (flat points v_0, v_1, ...), stationary operand a slot."""

    kept: Int[np.ndarray, "link n"]
    cuts: Int[np.ndarray, "cut n"]
    stay: Int[np.ndarray, "slot n"]

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.stay.shape[1])

    def take(self, which: Any) -> "Rows":
        """Some of them."""
        return Rows(self.kept[:, which], self.cuts[:, which], self.stay[:, which])


def joined(parts: Sequence[Rows]) -> Rows:
    """One after the other."""
    return Rows(*(np.concatenate([getattr(p, f.name) for p in parts], axis=1) for f in dataclasses.fields(Rows)))


@dataclasses.dataclass(frozen=True)
class Space:
    """All even mappings of a layer at one unrolling.

    Attributes:
      chains: number of chains of cuts; each is taken with 3^slots stationarities.
      steps: temporal steps of every mapping.
      run, run_length: by stationary operand and operand, flat offset and product of the run that starts a slot.
      whole: by operand, slots that have no relevant loop. All at every point, as a slot's factors.
    """

    grid: Lattice
    slots: int
    links: tuple[Link, ...]
    columns: tuple[Column, ...]
    tiles: tuple[Tile, ...]
    chains: int
    steps: float
    macs: float
    span: tuple[float, ...]
    run: Int[np.ndarray, "stay operand point"]
    run_length: Float[np.ndarray, "stay operand point"]
    whole: Bool[np.ndarray, "operand point"]

    @property
    def mappings(self) -> int:
        """How many mappings there are."""
        return self.chains * int(len(OPERANDS) ** self.slots)

    def factors(self, cuts: Int[np.ndarray, "cut n"]) -> Int[np.ndarray, "slot dim n"]:
        """Factors of each slot from the flat points of the cuts."""
        flat = np.rint(self.grid.extents).astype(np.int64).reshape(len(DIMS), -1)
        n = cuts.shape[1]
        ends = [flat[:, c] for c in cuts] + [np.tile(flat[:, -1:], (1, n))]
        starts = [np.ones_like(ends[0]), *ends[:-1]]
        return np.stack([e // s for e, s in zip(ends, starts, strict=True)])

    def rows(self, allowed: Sequence[Bool[np.ndarray, "point"]] | None = None, every: bool = False) -> Iterator[Rows]:
        """All mappings in chunks, less those whose cuts lie at points that are not allowed.

        Args:
          allowed: per cut, at every point. every: also the stationarities that another one is never worse than.
        """
        useful = self._useful(every)
        for cuts in _chains(self.grid, self.slots - 1):
            if allowed is not None:
                fits = np.ones(cuts.shape[1], dtype=bool)
                for mask, cut in zip(allowed, cuts, strict=True):
                    fits &= mask[cut]
                cuts = cuts[:, fits]
            if cuts.shape[1]:
                yield from self._with_stays(cuts, useful)

    def _useful(self, every: bool) -> Bool[np.ndarray, "live stay point"]:
        """Whether a stationarity is worth a row, by the set of operands (bits) that the slot may keep."""
        stays, points = len(OPERANDS), self.run.shape[-1]
        found = np.ones((2 ** len(OPERANDS), stays, points), dtype=bool)
        if every:
            return found
        for live in range(2 ** len(OPERANDS)):
            kept = [o for o in range(len(OPERANDS)) if live >> o & 1]
            for a, b in itertools.permutations(range(stays), 2):
                no_worse, equal = np.ones(points, dtype=bool), np.ones(points, dtype=bool)
                for o in kept:
                    no_worse &= self.run_length[b, o] >= self.run_length[a, o]
                    equal &= self.run_length[b, o] == self.run_length[a, o]
                found[live, a] &= ~(no_worse & (~equal | (b < a)))
        return found

    def _with_stays(
        self, cuts: Int[np.ndarray, "cut n"], useful: Bool[np.ndarray, "live stay point"]
    ) -> Iterator[Rows]:
        last, n = self.run.shape[-1] - 1, cuts.shape[1]
        ends = [*cuts, np.full(n, last)]
        starts = [np.zeros(n, dtype=np.int64), *cuts]
        slot = [e - s for e, s in zip(ends, starts, strict=True)]
        alive = [self._alive(link, slot) for link in self.links]
        worth = []
        for k in range(self.slots):
            live = np.zeros(n, dtype=np.int64)
            for link, lives in zip(self.links, alive, strict=True):
                if link.start <= k:
                    live |= np.where(lives[k - link.start], 1 << OPERANDS.index(link.operand), 0)
            worth.append([useful[live, stay, slot[k]] for stay in range(len(OPERANDS))])
        for stays in itertools.product(range(len(OPERANDS)), repeat=self.slots):
            chosen = worth[0][stays[0]]
            for k in range(1, self.slots):
                chosen = chosen & worth[k][stays[k]]
            at = np.flatnonzero(chosen)
            if not at.size:
                continue
            kept = np.empty((len(self.links), at.size), dtype=np.int64)
            for i, (link, lives) in enumerate(zip(self.links, alive, strict=True)):
                o = OPERANDS.index(link.operand)
                kept[i] = starts[link.start][at]
                for k in range(link.start, self.slots):
                    kept[i] += np.where(lives[k - link.start][at], self.run[stays[k], o][slot[k][at]], 0)
            yield Rows(kept, cuts[:, at], np.tile(np.array(stays, dtype=np.int8)[:, None], (1, at.size)))

    def _alive(self, link: Link, slot: Sequence[Any]) -> list[Any]:
        """Per slot from the link's start out, whether the tile may still be kept there."""
        found = [np.ones(slot[0].shape, dtype=bool)]
        for k in range(link.start, self.slots - 1):
            found.append(found[-1] & self.whole[OPERANDS.index(link.operand)][slot[k]])
        return found


def _chains(grid: Lattice, cuts: int) -> Iterator[Int[np.ndarray, "cut n"]]:
    """Flat points of every chain of cuts, in chunks."""
    strides = [math.prod(grid.shape[i + 1 :]) for i in range(len(grid.shape))]
    parts = []
    for n, stride in zip(grid.shape, strides, strict=True):
        rising = list(itertools.combinations_with_replacement(range(n), cuts))
        parts.append(np.array(rising, dtype=np.int64).reshape(len(rising), cuts).T * stride)
    tail = np.zeros((cuts, 1), dtype=np.int64)
    while parts and tail.shape[1] * parts[-1].shape[1] <= CHUNK:
        tail = (parts.pop()[:, :, None] + tail[:, None, :]).reshape(cuts, -1)
    for head in itertools.product(*(range(p.shape[1]) for p in parts)):
        start = sum((p[:, i] for p, i in zip(parts, head, strict=True)), np.zeros(cuts, dtype=np.int64))
        yield tail + start[:, None]


def _chain_count(lengths: Sequence[int], cuts: int) -> int:
    return math.prod(math.comb(n - 1 + cuts, cuts) for n in lengths)


def require_small(name: str, shape: LayerShape, machine: Hierarchy, unrolled: Nest) -> tuple[int, ...]:
    """The temporal bounds; ValueError for more than MAX_TIERS tiers or MAX_CHAINS chains of cuts."""
    slots = tier_count(machine)
    if slots > MAX_TIERS:
        raise ValueError(
            f"{name}: {machine.name} has {slots} tiers of memories; sets of even mappings are made for at most "
            f"{MAX_TIERS}; search it by `cooptim.mapping.search.best_mapping` (branch and bound, all cuts)"
        )
    covered = [math.prod(row[i] for row in unrolled.unroll) for i in range(len(DIMS))]
    temporal = tuple(round(shape.bounds[i] / covered[i]) for i in range(len(DIMS)))
    factors = [prime_factors(bound) for bound in temporal]
    chains = _chain_count([f.count(prime) + 1 for f in factors for prime in set(f)], slots - 1)
    if chains > MAX_CHAINS:
        raise ValueError(
            f"{name}: {chains} ways to cut its loops into {slots} slots; at most {MAX_CHAINS} are tried; unroll more, "
            "or search by `cooptim.mapping.search.best_mapping`"
        )
    return temporal


def even_space(
    name: str, shape: LayerShape, machine: Hierarchy, rules: Rules, unrolled: Nest, rounded: bool = False
) -> Space:
    """The even mappings of a layer; the machine's sizes, energies and port widths do not matter, nor the layer's bits.

    Args:
      name: of the layer, for messages. rules: HARDWARE or ZIGZAG; packing is off.
      unrolled: gives the units (see `cooptim.mapping.search.unrolled`).
      rounded: tiles under a fraction of units are whole words, as the full price has them.

    Raises ValueError for more than MAX_TIERS tiers or MAX_CHAINS chains of cuts.
    """
    temporal = require_small(name, shape, machine, unrolled)
    grid, slots = lattice(name, temporal), tier_count(machine)
    chains = _chain_count(grid.shape, slots - 1)
    plain = dataclasses.replace(rules, pack="transfer" if rounded else "none")
    unit = dataclasses.replace(shape, w_bits=1.0, i_bits=1.0, psum_bits=1.0, o_bits=1.0)
    build = CutBuilder(grid, unit, machine, plain, unrolled.unroll, unrolled.whole, temporal)
    links, columns, tiles = even_tables(build)
    run, length, whole = _runs(grid)
    return Space(
        grid, slots, links, columns, tiles, chains, float(math.prod(temporal)), float(shape.macs),
        tuple(float(s) for s in unrolled.span), run, length, whole,
    )  # fmt: skip


def _runs(grid: Lattice) -> tuple[Any, Any, Any]:
    """(flat offset, product of the run that starts a slot, by stay and operand; slots without relevant loops)."""
    stays, points = len(OPERANDS), grid.points
    extents = grid.extents.reshape(len(DIMS), -1)
    strides = [math.prod(grid.shape[i + 1 :]) for i in range(len(grid.shape))]
    offset = np.zeros((len(DIMS), points), dtype=np.int64)
    for i, (dim, _) in enumerate(grid.axes):
        offset[dim] += np.indices(grid.shape)[i].reshape(-1) * strides[i]
    run, length = np.zeros((stays, stays, points), dtype=np.int64), np.ones((stays, stays, points))
    whole = np.ones((stays, points), dtype=bool)
    for o, operand in enumerate(OPERANDS):
        idle = IRRELEVANT[operand]
        for dim in range(len(DIMS)):
            if dim not in idle:
                whole[o] &= extents[dim] == 1
        for stay, order in enumerate(slot_orders()):
            keeps = np.ones(points, dtype=bool)
            for dim in order:
                if dim in idle:
                    run[stay, o] += np.where(keeps, offset[dim], 0)
                    length[stay, o] *= np.where(keeps, extents[dim], 1.0)
                else:
                    keeps &= extents[dim] == 1
    return run, length, whole
