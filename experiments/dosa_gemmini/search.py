"""Exact search: the least EDP of a network over mappings and hardware, with a proven bound. README.md has the argument.

For one hardware the product (sum of energies) x (sum of cycles) is least at a vertex of the sum of the layers' lower
hulls; hardware is bounded in boxes of (scratchpad KB, words of an accumulator bank), priced at their low corner and
filled up to their high corner.
"""

import dataclasses
import heapq
import math
from collections.abc import Sequence

import numpy as np
from frontier import Tilings
from model import (
    ACCUMULATOR_PJ,
    ACCUMULATOR_PJ_PER_KB,
    SCRATCHPAD_PJ,
    SCRATCHPAD_PJ_PER_KB,
    UJ,
    Hardware,
    Layer,
    Mapping,
    Price,
    price,
)

KB_PER_WORD = 4 / 1024  # of a bank


@dataclasses.dataclass(frozen=True)
class Box:
    """Hardware between two corners: whole KB of scratchpad, whole words of a bank, both ends included."""

    sp_low: int
    sp_high: int
    bank_low: int
    bank_high: int

    def halves(self) -> tuple["Box", "Box"]:
        """Two boxes that share this one, cut where the energy price spreads most."""
        spread_sp = SCRATCHPAD_PJ_PER_KB * (self.sp_high - self.sp_low)
        spread_bank = ACCUMULATOR_PJ_PER_KB * KB_PER_WORD * (self.bank_high - self.bank_low)
        if spread_sp >= spread_bank:
            middle = _middle(self.sp_low, self.sp_high)
            return (dataclasses.replace(self, sp_high=middle), dataclasses.replace(self, sp_low=middle + 1))
        middle = _middle(self.bank_low, self.bank_high)
        return (dataclasses.replace(self, bank_high=middle), dataclasses.replace(self, bank_low=middle + 1))

    @property
    def single(self) -> bool:
        """Whether one hardware is left."""
        return self.sp_low == self.sp_high and self.bank_low == self.bank_high


def _middle(low: int, high: int) -> int:
    """Arithmetic middle, geometric where the ends are far apart."""
    return math.isqrt(low * high) if high > 4 * low else (low + high) // 2


@dataclasses.dataclass(frozen=True)
class Found:
    """The best design found, and the proven bound of the space."""

    mappings: tuple[Mapping, ...]
    price: Price
    bound: float  # no design of the space has a smaller EDP [uJ*cycles]
    boxes: int


def lower_hull(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rows of the lower left convex hull of points, by rising x and falling y."""
    order = np.lexsort((y, x))
    falling = np.minimum.accumulate(y[order])
    order = order[np.concatenate([[True], y[order][1:] < falling[:-1]])]
    kept: list[int] = []
    xs, ys = x[order].tolist(), y[order].tolist()
    for i in range(len(order)):
        while len(kept) > 1:
            a, b = kept[-2], kept[-1]
            if (ys[b] - ys[a]) * (xs[i] - xs[a]) < (ys[i] - ys[a]) * (xs[b] - xs[a]):
                break
            kept.pop()
        kept.append(i)
    return order[kept]


def least_product(points: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[float, list[int]]:
    """(least (sum of x) x (sum of y) over one point (x, y) of every set, the rows taken); exact, x and y positive.

    A product of positive sums is quasi-concave, so its least value over the convex hull of all sums lies at a vertex;
    each vertex is one hull vertex of every set, all for the same slope, and therefore a choice of points.
    """
    hulls = [lower_hull(x, y) for x, y in points]
    corners = [(x[hull], y[hull]) for (x, y), hull in zip(points, hulls, strict=True)]
    dx, dy = (np.concatenate([np.diff(c[axis]) for c in corners]) for axis in (0, 1))
    owner = np.repeat(np.arange(len(hulls)), [len(hull) - 1 for hull in hulls])
    steps = np.argsort(dy / dx, kind="stable")  # steepest first: the order of every hull of its own
    x = sum(c[0][0] for c in corners) + np.concatenate([[0.0], np.cumsum(dx[steps])])
    y = sum(c[1][0] for c in corners) + np.concatenate([[0.0], np.cumsum(dy[steps])])
    best = int(np.argmin(x * y))
    taken = np.bincount(owner[steps[:best]], minlength=len(hulls))
    return float(x[best] * y[best]), [int(hull[n]) for hull, n in zip(hulls, taken, strict=True)]


def solve_prices(
    network: Sequence[Layer],
    tables: Sequence[Tilings],
    pj: tuple[float, float],
    sp_kb: float,
    bank_words: float,
) -> tuple[float, list[int]] | None:
    """(least EDP, row of every layer) at prices (scratchpad, accumulator) [pJ] and capacities; None if one is empty."""
    points, fitting = [], []
    for layer, table in zip(network, tables, strict=True):
        rows = np.flatnonzero((table.sp_bytes <= 1024 * sp_kb) & (table.bank_words <= bank_words))
        if not rows.size:
            return None
        energy = table.base_uj[rows] + UJ * (pj[0] * table.scratchpad[rows] + pj[1] * table.accumulator[rows])
        points.append((layer.count * table.cycles[rows], layer.count * energy))
        fitting.append(rows)
    edp, taken = least_product(points)
    return edp, [int(rows[n]) for rows, n in zip(fitting, taken, strict=True)]


def solve_hardware(network: Sequence[Layer], tables: Sequence[Tilings], hardware: Hardware) -> Found:
    """The exact optimum on one hardware; its tables are those of its array side. ValueError if a layer cannot run."""
    bank_words = math.floor(hardware.acc_kb * 1024 / 4 / hardware.pe_dim)
    pj = (hardware.scratchpad_pj, hardware.accumulator_pj)
    solved = solve_prices(network, tables, pj, hardware.sp_kb, bank_words)
    if solved is None:
        raise ValueError(f"{hardware}: a layer has no tile that fits; give it more scratchpad or accumulator")
    mappings = tuple(table.mapping(row) for table, row in zip(tables, solved[1], strict=True))
    return Found(mappings, price(network, mappings, hardware), solved[0], 1)


def search(
    network: Sequence[Layer],
    tables: Sequence[Tilings],
    start: Box | None = None,
    tolerance: float = 1e-4,
) -> Found:
    """The least EDP over all hardware of the box, best bound first, until the gap is at most `tolerance`.

    Args:
      tables: Pareto sets at the largest array side; prices of a box are those of unrounded KB, which no smaller side
        has lower, so that the bound holds for smaller sides too.
      start: by default any size.

    Raises ValueError when no design fits the box.
    """
    best: tuple[float, tuple[Mapping, ...], Price] | None = None
    bound, boxes = math.inf, 0
    heap: list[tuple[float, int, Box]] = []
    pending = [Box(1, 2**24, 1, 2**24) if start is None else start]
    while pending or heap:
        for box in pending:
            boxes += 1
            pj = (
                SCRATCHPAD_PJ + SCRATCHPAD_PJ_PER_KB * box.sp_low,
                ACCUMULATOR_PJ + ACCUMULATOR_PJ_PER_KB * KB_PER_WORD * box.bank_low,
            )
            solved = solve_prices(network, tables, pj, box.sp_high, box.bank_high)
            if solved is None:
                continue
            mappings = tuple(table.mapping(row) for table, row in zip(tables, solved[1], strict=True))
            found = price(network, mappings)
            if best is None or found.edp < best[0]:
                best = (found.edp, mappings, found)
            heapq.heappush(heap, (solved[0], boxes, box))
        pending = []
        if not heap or best is None:
            break
        low, _, box = heapq.heappop(heap)
        if low >= best[0] * (1 - tolerance):  # the least of all that are left
            bound = min(bound, low)
            break
        if box.single:
            bound = min(bound, low)
        else:
            pending = list(box.halves())
    if best is None:
        raise ValueError(f"no mapping of every layer fits {start}; give it more scratchpad or accumulator")
    return Found(best[1], best[2], min(bound, best[0]), boxes)
