"""Timeloop's counts of a mapping: reads, fills and updates of every tensor in every level, by its own conventions.

Timeloop (ISPASS 2019; v3.0.3) walks the loops outside a level and charges, at each step, the part of the new tile that
is not in the last one. `timeloop_counts` is that walk as a closed form; tests/oracle/timeloop_walk.py walks it.

**Tile.** The box (axis-aligned, gaps of a stride included, nothing clipped) under all loops and units inside a level:
an axis of inputs with o outputs, f taps, stride s and dilation d is 1 + (o - 1) s + (f - 1) d positions long.

**Step.** Loop j outside the level, of n_j > 1 iterations, moves the tile by v_j: the product of all factors of its dim
inside it (the units of the fan-outs of its own and of inner levels included), times s or d on an axis of inputs;
v_j = 0 where it is irrelevant. When it takes its next iteration all loops i inside it return, so the tile moves by
D_j = v_j - sum over i of (n_i - 1) v_i. That happens N_j = (n_j - 1) x (product of the factors of the loops outside j)
times.

**Charge.** After a move by D the part that is new is delta(D) = T - prod over axes of max(0, e - |D|), T the tile and e
its extents. Timeloop keeps what overlaps only while the tile slides on by one and the same vector: a step along another
vector discards the tile and starts a new slide; a step by 0 costs nothing and does not disturb the slide. Let m be the
innermost loop with v_m != 0. It restarts a slide after whatever went before, so each of its N_m steps costs delta(v_m).
A loop j outside m costs, each of its N_j times,

    0            where D_j = 0 (the tile is where it was),
    delta(v_m)   where D_j = v_m (loops of one dim in two levels slide on without a seam),
    T            else (the whole tile, whatever the overlap).

Loops inside m cost nothing. What is charged is T + the sum of these. For weights and outputs, and for inputs without
taps, tiles never overlap: delta = T, and the sum is T times the factors from the outermost loop in to m.

**Counts**, per instance, with U the distinct tiles among the units of a fan-out (units on the same tile are served by
one read; tiles that merely overlap are not shared, and tiles of different fan-outs are multiplied):

| | weights, inputs | outputs |
|---|---|---|
| fills | charged(this level); 0 in the outermost | charged - first visits; 0 in the outermost |
| content | charged(next inner level that keeps the tensor) x the U of all fan-outs between | the same |
| reads | content | content - first visits |
| updates | 0 | content |

Innermost, the MACs are the inner level, charged once a cycle. First visits are the outputs that one instance is the
first to hold: all outputs / the U of the fan-outs outside. Instances = units of the fan-outs outside the level.

Not in here: links between neighbouring units (a unit that takes what its neighbour held one step before; no case that
we have from Timeloop changes when they are disabled), several tiles of one dim in one level, residual factors.
"""

import dataclasses
import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.nest import INDEX, MOVES_WHOLLY, LayerShape, Nest
from cooptim.workload import OPERANDS
from cooptim.workload.dims import DIMS

_Axis = tuple[tuple[int, Any], ...]  # (dim, positions by which one step of it moves the tile)


@dataclasses.dataclass(frozen=True)
class Counts:
    """Words of one operand in one instance of a level; of all `instances` they are the same.

    Attributes:
      temporal_reductions: sums of an arriving partial sum and the one that is here.
    """

    tile: Any
    instances: Any
    reads: Any
    fills: Any
    updates: Any
    temporal_reductions: Any


def timeloop_counts(
    nest: Nest, shape: LayerShape, machine: Hierarchy, *, xp: ModuleType = np
) -> dict[tuple[str, int], Counts]:
    """Counts per (operand, its level), as the module's text says; exact on integers below 2^53.

    Args:
      nest: one mapping or a batch of them (slots in the leading axis). All operands are cut alike: where two keep a
        memory their cuts there are equal. The units of an array dimension run just outside the next inner memory of the
        first that serves it, as Timeloop's spatial loops do.
      xp: numpy or jax.numpy.
    """
    loops = _Loops(nest, machine, xp)
    found: dict[tuple[str, int], Counts] = {}
    for operand in OPERANDS:
        axes = _axes(operand, shape)
        levels = machine.levels(operand)
        cuts = nest.cuts[OPERANDS.index(operand)]
        demand, inner = loops.steps_outside(0), -1  # of the MACs: every operand, every cycle
        for m, memory in enumerate(levels):
            extents = loops.extents(cuts[m], memory)
            content = demand * _product(loops.distinct(axes, home) for home in range(inner + 1, memory + 1))
            demand, inner = loops.charged(axes, extents, cuts[m]), memory
            outside = range(memory + 1, len(machine.memories))
            first: Any = 0.0
            if operand == "O":
                words = _product(shape.bounds[i] for i in MOVES_WHOLLY["O"])
                first = words / _product(loops.distinct(axes, home) for home in outside)
            outermost = m == len(levels) - 1
            found[operand, m] = Counts(
                tile=_product(_sizes(axes, extents)),
                instances=_product(loops.units(home) for home in outside),
                reads=content - first,
                fills=0.0 * demand if outermost else demand - first,
                updates=content if operand == "O" else 0.0 * content,
                temporal_reductions=content - first if operand == "O" else 0.0 * content,
            )
    return found


def _axes(operand: str, shape: LayerShape) -> tuple[_Axis, ...]:
    """The axes of an operand and what moves along each."""
    if operand != "I":
        return tuple(((i, 1),) for i in MOVES_WHOLLY[operand])
    plain: tuple[_Axis, ...] = tuple(((i, 1),) for i in MOVES_WHOLLY["I"])
    pairs = (("OY", "FY"), ("OX", "FX"))
    return plain + tuple(
        ((INDEX[out], shape.stride[k]), (INDEX[tap], shape.dilation[k])) for k, (out, tap) in enumerate(pairs)
    )


def _product(found: Any) -> Any:
    return math.prod(found, start=1.0)


def _sizes(axes: Sequence[_Axis], extents: Sequence[Any]) -> list[Any]:
    """Length of the box of these extents along each axis."""
    return [1.0 + sum(by * (extents[i] - 1.0) for i, by in axis) for axis in axes]


class _Loops:
    """Slots and units of a nest, with the place of each array dimension among the slots."""

    def __init__(self, nest: Nest, machine: Hierarchy, xp: ModuleType) -> None:
        self.xp, self.n = xp, len(nest.dims)
        self.dims, self.factors = [nest.dims[i] for i in range(self.n)], [nest.factors[i] for i in range(self.n)]
        self.unroll = nest.unroll
        served = [memory.served_dims for memory in machine.memories]
        # The first memory that serves an array dimension has its units as children.
        self.home = [
            next((i for i, dims in enumerate(served) if name in dims), len(served)) for name in machine.array_dims
        ]
        self.inner_edge = [self._cut_of(home - 1, nest, machine) for home in self.home]

    @staticmethod
    def _cut_of(memory: int, nest: Nest, machine: Hierarchy) -> Any:
        """Slots inside a memory's tiles; none inside the MACs."""
        if memory < 0:
            return 0
        operand = next(op for op in OPERANDS if memory in machine.levels(op))
        return nest.cuts[OPERANDS.index(operand)][machine.levels(operand).index(memory)]

    def units(self, home: int) -> Any:
        """Units of one fan-out."""
        return _product(x for axis, at in enumerate(self.home) if at == home for x in self.unroll[axis])

    def fan_out(self, home: int) -> list[Any]:
        """Units of one fan-out per dim."""
        rows = [self.unroll[axis] for axis, at in enumerate(self.home) if at == home]
        return [_product(row[i] for row in rows) for i in range(len(DIMS))]

    def steps_outside(self, cut: Any) -> Any:
        """Iterations of the loops outside a cut."""
        return _product(self.xp.where(cut > i, 1.0, self.factors[i]) for i in range(self.n))

    def extents(self, cut: Any, memory: int) -> list[Any]:
        """Extent of each dim under the slots below a cut and the units of the fan-outs of memories up to one."""
        found = [_product(self.unroll[axis][i] for axis, at in enumerate(self.home) if at <= memory)
                 for i in range(len(DIMS))]  # fmt: skip
        for i in range(self.n):
            inside = self.xp.where(cut > i, self.factors[i], 1.0)
            found = [self.xp.where(self.dims[i] == j, have * inside, have) for j, have in enumerate(found)]
        return found

    def moves(self, axes: Sequence[_Axis]) -> list[list[Any]]:
        """Per slot the move of a tile along each axis when the slot takes its next iteration."""
        found = []
        for i in range(self.n):
            by: list[Any] = [0.0] * len(axes)
            for a, axis in enumerate(axes):
                for j, scale in axis:
                    step: Any = 1.0 * scale
                    for k in range(i):
                        step = step * self.xp.where(self.dims[k] == j, self.factors[k], 1.0)
                    for unroll, edge in zip(self.unroll, self.inner_edge, strict=True):
                        step = step * self.xp.where(edge <= i, unroll[j], 1.0)
                    by[a] = by[a] + self.xp.where(self.dims[i] == j, step, 0.0)
            found.append(by)
        return found

    def charged(self, axes: Sequence[_Axis], extents: Sequence[Any], cut: Any) -> Any:
        """Words that one instance is charged for its tiles over the whole layer."""
        xp = self.xp
        sizes = _sizes(axes, extents)
        tile = _product(sizes)
        moves = self.moves(axes)
        slide: list[Any] = [0.0] * len(axes)  # v_m
        back: list[Any] = [0.0] * len(axes)  # sum of (n_i - 1) v_i
        sliding: Any = False
        delta, total = 0.0 * tile, tile
        for i in range(self.n):
            turns = ~xp.asarray(cut > i) & (self.factors[i] > 1)
            move = [a - b for a, b in zip(moves[i], back, strict=True)]
            still = _all(xp.equal(a, 0.0) for a in move)
            seamless = _all(xp.equal(a, b) for a, b in zip(move, slide, strict=True))
            starts = turns & ~xp.asarray(sliding) & ~still
            shared = _product(xp.maximum(0.0, e - v) for e, v in zip(sizes, moves[i], strict=True))
            delta = xp.where(starts, tile - shared, delta)
            slide = [xp.where(starts, v, old) for v, old in zip(moves[i], slide, strict=True)]
            cost = xp.where(still, 0.0, xp.where(starts | seamless, delta, tile))
            times = (self.factors[i] - 1.0) * _product(self.factors[i + 1 :])
            total = total + xp.where(turns, times * cost, 0.0)
            back = [b + xp.where(turns, (self.factors[i] - 1.0) * v, 0.0) for b, v in zip(back, moves[i], strict=True)]
            sliding = sliding | starts
        return total

    def distinct(self, axes: Sequence[_Axis], home: int) -> Any:
        """U: distinct tiles among the units of one fan-out.

        Along an axis of inputs unit (p, r) stands at p a + r b. Those on one position form chains along (b, -a) / g,
        g = gcd(a, b), so that of P R units P R - max(0, P - b/g) max(0, R - a/g) are distinct.
        """
        xp = self.xp
        units = self.fan_out(home)
        edge = next((edge for edge, at in zip(self.inner_edge, self.home, strict=True) if at == home), 0)
        extents = self.extents(edge, home - 1)
        found: Any = 1.0
        for axis in axes:
            if len(axis) == 1:
                found = found * units[axis[0][0]]
                continue
            (out, stride), (tap, dilation) = axis
            a, b = stride * extents[out], dilation * extents[tap]
            common = xp.gcd(xp.asarray(xp.rint(a), int), xp.asarray(xp.rint(b), int))
            again = xp.maximum(0.0, units[out] - b / common) * xp.maximum(0.0, units[tap] - a / common)
            found = found * (units[out] * units[tap] - again)
        return found


def _all(found: Any) -> Any:
    result: Any = True
    for each in found:
        result = result & each
    return result
