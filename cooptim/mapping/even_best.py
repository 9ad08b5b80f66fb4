"""The even mappings that a frontier ends in: the best rows at given numbers, priced again in full.

Rows are ranked by their price (`row_price`: packing off, perfect overlap) among those that fit; the first few are
priced in full, with word packing and stalls, and the best of them is taken. Packing and stalls may put a mapping first
that is none of the few, or no row at all. `proven` closes that gap for every even mapping: words of a transfer are
rounded up, and accesses down by less than one a transfer, so that

    full cost >= words x bits x energy / width - sum over transfers of one access + cycle_price x (steps + drain)

and all mappings whose bound lies below the best full cost so far are priced in full.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.even import even_mapping, even_price
from cooptim.mapping.even_box import Box, looked_up
from cooptim.mapping.even_frontier import EvenFrontier, Sizes, even_frontier
from cooptim.mapping.even_rows import Rows, Space, even_space, joined
from cooptim.mapping.nest import LayerShape, Mapping, Nest
from cooptim.mapping.row_price import rates, row_prices, stacked
from cooptim.mapping.rules import HARDWARE, Rules
from cooptim.mapping.search import Spatial
from cooptim.mapping.stack import usable_room

FEW = 16  # rows priced in full
BATCH = 1 << 15  # mappings priced in full at once
FULL = 1 + 1e-12  # share of a memory up to which a mapping is legal


@dataclasses.dataclass(frozen=True)
class BestRow:
    """A legal mapping, its full price, and what the relaxation says of the best row (packing off, perfect overlap).

    Attributes:
      sizes: of the set that it comes from.
      proven: no even mapping of this unrolling has less energy_pj + cycle_price x cycles.
    """

    mapping: Mapping
    energy_pj: float
    cycles: float
    relaxed_pj: float
    relaxed_cycles: float
    sizes: Sizes
    proven: bool


@dataclasses.dataclass(frozen=True)
class _Layer:
    """What pricing a layer in full asks for."""

    name: str
    shape: LayerShape
    machine: Hierarchy
    unrolled: Nest
    rules: Rules
    cycle_price: float


def frontier_sizes(
    names: Sequence[str],
    shapes: Sequence[LayerShape],
    machine: Hierarchy,
    unrolled: Sequence[Nest],
    rules: Rules = HARDWARE,
    box: Box | None = None,
) -> dict[str, Sizes]:
    """How many even mappings each layer has and how many compete (see `even_frontier`, also for errors)."""
    layers = zip(names, shapes, unrolled, strict=True)
    return {name: even_frontier(name, shape, machine, nest, rules, box).sizes for name, shape, nest in layers}


def best_rows(
    names: Sequence[str],
    shapes: Sequence[LayerShape],
    machine: Hierarchy,
    unrolled: Sequence[Nest],
    spatial: Sequence[Spatial],
    rules: Rules = HARDWARE,
    cycle_price: float = 0.0,
    box: Box | None = None,
    few: int = FEW,
    proven: bool = False,
) -> tuple[BestRow, ...]:
    """Of each layer the legal even mapping of least energy + cycle_price x cycles, by its full price.

    Args:
      unrolled, spatial: the same unrolling as a nest and by names. cycle_price: [pJ / cycle].
      box: the set's; machine and bits must lie in it. few: rows priced in full.
      proven: price every even mapping that may be cheaper, too.

    Raises ValueError as `even_frontier` does, for numbers outside the box, and where nothing fits.
    """
    found = []
    for name, shape, nest, units in zip(names, shapes, unrolled, spatial, strict=True):
        if box is not None:
            box.require_inside(name, shape, machine)
        frontier = even_frontier(name, shape, machine, nest, rules, box)
        found.append(_best_row(_Layer(name, shape, machine, nest, rules, cycle_price), frontier, units, few, proven))
    return tuple(found)


def _best_row(layer: _Layer, frontier: EvenFrontier, spatial: Spatial, few: int, proven: bool) -> BestRow:
    stack = stacked([layer.name], [layer.shape], layer.machine, [frontier])
    rows = row_prices(stack, layer.machine, rates(stack, layer.machine, np), xp=np)
    n = frontier.rows.n
    energy, cycles = (np.asarray(x).reshape(-1)[:n] for x in (rows.energy_pj, rows.cycles))
    bits = np.moveaxis(np.asarray(rows.bits), 1, 0).reshape(len(layer.machine.memories), -1)[:, :n]
    room = np.array([float(usable_room(memory)) for memory in layer.machine.memories])
    fits = np.flatnonzero(np.all(bits <= room[:, None] * FULL, axis=0))
    if not fits.size:
        rooms = ", ".join(f"{m.name} {float(m.size_bits):g} bit" for m in layer.machine.memories)
        raise ValueError(
            f"{layer.name}: none of {frontier.sizes.mappings} even mappings fits into the memories of "
            f"{layer.machine.name} ({rooms}); make the innermost memories larger or narrow the operands"
        )
    order = fits[np.argsort((energy + layer.cycle_price * cycles)[fits], kind="stable")]
    best: Any = None
    for start in range(0, len(order), few):
        best = _cheapest(layer, frontier.space, frontier.rows.take(order[start : start + few]), best)
        if best is not None:
            break
    if proven:
        best = _over_all(layer, best)
    if best is None:
        raise ValueError(
            f"{layer.name}: rows that fit in fractions of words do not in whole ones on {layer.machine.name}; "
            "ask for proven=True, or choose units that divide the layer"
        )
    value, energy_pj, total, factors, stay = best
    mapping = even_mapping(factors, stay, spatial, layer.machine)
    first = order[0]
    return BestRow(mapping, energy_pj, total, float(energy[first]), float(cycles[first]), frontier.sizes, proven)


def _cheapest(layer: _Layer, space: Space, rows: Rows, best: Any) -> Any:
    """(cost, energy, cycles, factors, stay) of the cheapest legal one by its full price, or the best so far."""
    factors, stay = space.factors(rows.cuts), rows.stay.astype(np.int64)
    full = even_price(factors, stay, layer.unrolled, layer.shape, layer.machine, layer.rules)
    cost = np.where(full.fullest <= FULL, full.energy_pj + layer.cycle_price * full.cycles, np.inf)
    at = int(np.argmin(cost))
    if not math.isfinite(cost[at]) or (best is not None and cost[at] >= best[0]):
        return best
    return float(cost[at]), float(full.energy_pj[at]), float(full.cycles[at]), factors[..., at], stay[:, at]


def _over_all(layer: _Layer, best: Any) -> Any:
    """The cheapest of all even mappings by full price: those whose bound lies above the best are not priced."""
    space = even_space(layer.name, layer.shape, layer.machine, layer.rules, layer.unrolled, rounded=True)
    first = next(space.rows(every=True)).take(slice(0, 1))
    words, held = (np.stack([looked_up(i, first) for i in items]) for items in (space.columns, space.tiles))
    one = EvenFrontier(space, first, words, held, Sizes(space.mappings, 1, 1))
    stack = stacked([layer.name], [layer.shape], layer.machine, [one])
    price = rates(stack, layer.machine, np)
    fixed = float(layer.shape.macs * layer.machine.mac_pj) - _one_access_each(space, layer.machine)
    fixed += layer.cycle_price * (space.steps + float(stack.hops[0]))
    waiting: list[Rows] = []
    for rows in space.rows(_allowed(space, layer), every=True):
        bound = fixed + sum(r * looked_up(c, rows) for r, c in zip(price.energy_pj[0], space.columns, strict=True))
        waiting.append(rows.take(bound < (best[0] if best is not None else math.inf)))
        if sum(part.n for part in waiting) > BATCH:
            best = _cheapest(layer, space, joined(waiting), best)
            waiting.clear()
    if sum(part.n for part in waiting):
        best = _cheapest(layer, space, joined(waiting), best)
    return best


def _one_access_each(space: Space, machine: Hierarchy) -> float:
    """Energy of one access of every transfer [pJ]."""
    found = 0.0
    for column in space.columns:
        for side in column.sides:
            memory = machine.memories[side.memory]
            port = next(p for p in memory.ports if p.name == side.port)
            cost = memory.read_pj if side.direction.startswith("read") else memory.write_pj
            found += float(cost * memory.access_scale() * port.width_scale())
    return found


def _allowed(space: Space, layer: _Layer) -> list[Bool[np.ndarray, "point"]]:
    """Per cut the points under which the tiles of its tier's memories may fit; outputs at their narrower width."""
    bits = {"W": layer.shape.w_bits, "I": layer.shape.i_bits, "O": min(layer.shape.o_bits, layer.shape.psum_bits)}
    found = [np.ones(space.grid.points, dtype=bool) for _ in range(space.slots - 1)]
    for m, memory in enumerate(layer.machine.memories):
        tiles = [tile for tile in space.tiles if tile.memory == m and tile.link >= 0]
        if tiles:
            total: Any = sum(tile.table * bits[tile.operand] for tile in tiles)
            found[space.links[tiles[0].link].start - 1] &= total <= float(usable_room(memory)) * FULL
    return found
