"""The cheapest chain of cuts: a dynamic program over the lattice of loops, exact over all orders and uneven cuts.

State: how many cuts of each operand are placed, all at or below a point. Placing the next cut of an operand at v costs
its table at v; moving up the lattice costs nothing. The least over all points below is a running minimum along each
axis, so a layer takes (cuts + 1)^3 x axes passes over its points.

A memory that several operands share couples their cuts: the tiles must fit together. Best-first branch and bound over
intervals of the tiles' sizes: a box admits the cuts whose tiles lie in it, less those that cannot fit beside the least
of the others; its cheapest chain bounds it from below, and is optimal for it where the tiles fit. The largest tile
is halved between the chain's own and its lower end. The bound of the whole is the least of the open boxes. A search
that gives up still offers a legal chain: the cheapest within fixed shares of the shared memories.
"""

import dataclasses
import heapq
import itertools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.lattice import Cut, CutTable
from cooptim.workload import OPERANDS

FAVOURED = (0.5, 0.7, 0.9)  # of a shared memory to one operand, tried where the search gives up
Place = tuple[str, int]  # operand, index of the cut in its list
Point = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Chain:
    """Cuts in the order they are placed, each with its point; `cost` of the weights they were chosen with."""

    cost: float
    places: tuple[tuple[Place, Point], ...]

    def point(self, place: Place) -> Point:
        """Where a cut lies."""
        return dict(self.places)[place]


@dataclasses.dataclass(frozen=True)
class Found:
    """The best legal chain (None if none was met) and a proven lower bound of all legal ones."""

    chain: Chain | None
    bound: float
    boxes: int


def _running_minimum(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """The least over all points at or below, in place; axes are short, so whole slices are faster than accumulate."""
    for axis in range(values.ndim):
        slices = values.swapaxes(0, axis)
        for k in range(1, len(slices)):
            np.minimum(slices[k], slices[k - 1], out=slices[k, ...])
    return values


def cheapest_chain(costs: Mapping[str, list[Float[np.ndarray, "..."]]]) -> Chain | None:
    """The chain of least cost; None when none is finite.

    Args:
      costs: per operand the cost of each of its cuts at every point, innermost first; inf forbids.
    """
    counts = [len(costs[operand]) for operand in OPERANDS]
    shape = next(array.shape for arrays in costs.values() for array in arrays)
    best: dict[tuple[int, ...], np.ndarray] = {(0, 0, 0): np.zeros(shape)}
    for state in itertools.product(*(range(n + 1) for n in counts)):
        if state == (0, 0, 0):
            continue
        options = []
        for o, operand in enumerate(OPERANDS):
            if state[o]:
                before = tuple(s - (i == o) for i, s in enumerate(state))
                options.append(best[before] + costs[operand][state[o] - 1])
        least = options[0]
        for option in options[1:]:
            least = np.minimum(least, option)
        best[state] = _running_minimum(least)
    top = tuple(n - 1 for n in shape)
    total = float(best[tuple(counts)][top])
    return None if not np.isfinite(total) else Chain(total, _trace_back(best, costs, tuple(counts), top))


def _trace_back(
    best: Mapping[tuple[int, ...], np.ndarray],
    costs: Mapping[str, list[np.ndarray]],
    state: tuple[int, ...],
    point: Point,
) -> tuple[tuple[Place, Point], ...]:
    places = []
    while any(state):
        window = tuple(slice(0, i + 1) for i in point)
        target = best[state][point]
        found = None
        for o, operand in enumerate(OPERANDS):
            if not state[o]:
                continue
            before = tuple(s - (i == o) for i, s in enumerate(state))
            values = best[before][window] + costs[operand][state[o] - 1][window]
            flat = int(np.argmin(values))
            if values.reshape(-1)[flat] == target:
                found = (operand, before, np.unravel_index(flat, values.shape))
                break
        if found is None:
            raise AssertionError("the chain's cost has no predecessor")
        operand, before, at = found
        point = tuple(int(i) for i in at)
        places.append(((operand, before[OPERANDS.index(operand)]), point))
        state = before
    return tuple(reversed(places))


@dataclasses.dataclass(frozen=True)
class _Shared:
    """Cuts whose tiles share one memory."""

    memory: int
    room_bits: float
    places: tuple[Place, ...]


def shared_memories(table: CutTable, machine: Hierarchy) -> tuple[_Shared, ...]:
    """Memories in which more than one cut fixes a tile."""
    found = []
    for index, memory in enumerate(machine.memories):
        places = tuple(
            (operand, i) for operand in OPERANDS for i, cut in enumerate(table.cuts[operand]) if cut.memory == index
        )
        room = memory.size_bits / (2.0 if memory.double_buffered == "always" else 1.0)
        if len(places) > 1:
            found.append(_Shared(index, float(room), places))
    return tuple(found)


def _cut(table: CutTable, place: Place) -> Cut:
    return table.cuts[place[0]][place[1]]


Box = dict[Place, tuple[float, float]]


def _least(table: CutTable, costs: Mapping[str, list[np.ndarray]], place: Place) -> float:
    """The smallest tile that a cut may have."""
    legal = np.isfinite(costs[place[0]][place[1]])
    return float(np.min(_cut(table, place).tile_bits, where=legal, initial=np.inf))


def _masked(
    table: CutTable, costs: Mapping[str, list[np.ndarray]], shared: tuple[_Shared, ...], box: Box
) -> dict[str, list[np.ndarray]]:
    """Costs with the cuts outside a box, or too large beside the least of the others, forbidden."""
    masked = {operand: list(arrays) for operand, arrays in costs.items()}
    for group in shared:
        lows = {place: box[place][0] for place in group.places}
        for place in group.places:
            others = sum(low for other, low in lows.items() if other != place)
            low, high = box[place]
            bits = _cut(table, place).tile_bits
            legal = (bits >= low) & (bits <= min(high, group.room_bits - others))
            masked[place[0]][place[1]] = np.where(legal, masked[place[0]][place[1]], np.inf)
    return masked


def _overfull(table: CutTable, shared: tuple[_Shared, ...], chain: Chain) -> _Shared | None:
    for group in shared:
        used = sum(float(_cut(table, place).tile_bits[chain.point(place)]) for place in group.places)
        if used > group.room_bits:
            return group
    return None


def best_chain(
    table: CutTable, costs: Mapping[str, list[np.ndarray]], machine: Hierarchy, max_boxes: int = 200
) -> Found:
    """The cheapest chain that fits, with a proven bound, by branch and bound over the tiles in shared memories.

    Args:
      costs: as in `cheapest_chain`; any non-negative cost per cut.
      max_boxes: dynamic programs at most; beyond it the bound of the open boxes stands, and the chain is the cheapest
        that keeps to fixed shares of the shared memories (None if not even one of them fits).
    """
    shared = shared_memories(table, machine)
    start: Box = {place: (_least(table, costs, place), float("inf")) for group in shared for place in group.places}
    first = cheapest_chain(_masked(table, costs, shared, start))
    if first is None:
        return Found(None, float("inf"), 1)
    heap: list[tuple[float, int, Box, Chain]] = [(first.cost, 0, start, first)]
    boxes = 1
    while heap:
        bound, _, box, chain = heapq.heappop(heap)
        group = _overfull(table, shared, chain)
        if group is None:
            return Found(chain, bound, boxes)
        if boxes >= max_boxes:
            return Found(_within_shares(table, costs, shared), bound, boxes)
        for child in _split(table, group, box, chain):
            found = cheapest_chain(_masked(table, costs, shared, child))
            boxes += 1
            if found is not None:
                heapq.heappush(heap, (found.cost, boxes, child, found))
    return Found(None, float("inf"), boxes)


def least_cost(table: CutTable, costs: Mapping[str, list[np.ndarray]], machine: Hierarchy) -> float:
    """A bound of the cheapest chain by one dynamic program: tiles in a shared memory fit beside the least of others."""
    shared = shared_memories(table, machine)
    box: Box = {place: (_least(table, costs, place), float("inf")) for group in shared for place in group.places}
    found = cheapest_chain(_masked(table, costs, shared, box))
    return float("inf") if found is None else found.cost


def _within_shares(table: CutTable, costs: Mapping[str, list[np.ndarray]], shared: tuple[_Shared, ...]) -> Chain | None:
    """The cheapest chain whose tiles keep to shares of each shared memory: equal ones, or most of it to one operand."""
    found: Chain | None = None
    for operand, most in ((None, 0.0), *((o, m) for o in OPERANDS for m in FAVOURED)):
        masked = {o: list(arrays) for o, arrays in costs.items()}
        for group in shared:
            favoured = any(place[0] == operand for place in group.places)
            for place in group.places:
                n = len(group.places)
                share = 1.0 / n if not favoured else most if place[0] == operand else (1.0 - most) / (n - 1)
                legal = _cut(table, place).tile_bits <= share * group.room_bits
                masked[place[0]][place[1]] = np.where(legal, masked[place[0]][place[1]], np.inf)
        chain = cheapest_chain(masked)
        if chain is not None and (found is None or chain.cost < found.cost):
            found = chain
    return found


def _split(table: CutTable, group: _Shared, box: Box, chain: Chain) -> tuple[Box, Box]:
    """A box without the chain's tile at its largest cut, twice: below it, and from it on (the others then shrink)."""
    sizes = {place: float(_cut(table, place).tile_bits[chain.point(place)]) for place in group.places}
    widest = max(sizes, key=lambda place: sizes[place] - box[place][0])
    low, high = box[widest]
    bits = np.unique(_cut(table, widest).tile_bits)
    inside = bits[(bits >= low) & (bits < sizes[widest])]  # the group is overfull, so some tile is above its least
    edge = float(inside[np.searchsorted(inside, (low + sizes[widest]) / 2.0, side="right") - 1])
    above = float(bits[bits > edge][0])
    return {**box, widest: (low, edge)}, {**box, widest: (above, high)}
