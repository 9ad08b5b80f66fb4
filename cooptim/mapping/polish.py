"""A local search on the full price, stalls and on-/off-loading included, from mappings that are good without them.

A small population; each round draws neighbours (a loop moved to another place, a cut moved to another slot, or both),
prices them in one batch and keeps the best and, of equals, the first. Deterministic for a seed.
"""

from collections.abc import Sequence

import numpy as np

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.nest import INDEX, LayerShape, Mapping, Nest
from cooptim.mapping.price import Price, price
from cooptim.mapping.rules import Rules
from cooptim.workload import OPERANDS
from cooptim.workload.dims import DIMS

POPULATION = 12
NEIGHBOURS = 240  # priced a round


def polish(
    starts: Sequence[Mapping],
    unrolled: Nest,
    shape: LayerShape,
    machine: Hierarchy,
    rules: Rules,
    slope_pj: float,
    rounds: int,
    seed: int = 0,
) -> list[tuple[Mapping, float, float]]:
    """(mapping, energy [pJ], cycles) of the final population, best energy + slope x cycles first.

    Args:
      starts: legal mappings of one unrolling with the same loops; unrolled: their spatial part.
      slope_pj: what a cycle is worth.
    """
    spatial = starts[0].spatial
    rng = np.random.default_rng(seed)
    people = [_encode(m) for m in starts[:POPULATION]]
    slots, cuts = (np.stack([p[i] for p in people], axis=-1) for i in range(2))
    energy, cycles, score = _score(slots, cuts, unrolled, shape, machine, rules, slope_pj)
    for _ in range(rounds):
        parents = rng.integers(0, slots.shape[-1], NEIGHBOURS)
        new_slots, new_cuts = _neighbours(slots[..., parents], cuts[..., parents], machine, rng)
        found = _score(new_slots, new_cuts, unrolled, shape, machine, rules, slope_pj)
        slots, cuts = np.concatenate([slots, new_slots], -1), np.concatenate([cuts, new_cuts], -1)
        energy, cycles, score = (np.concatenate(pair) for pair in zip((energy, cycles, score), found, strict=True))
        _, distinct = np.unique(score, return_index=True)
        keep = distinct[:POPULATION]
        slots, cuts, energy, cycles, score = slots[..., keep], cuts[..., keep], energy[keep], cycles[keep], score[keep]
    order = [i for i in np.argsort(score, kind="stable") if np.isfinite(score[i])]
    return [(_decode(slots[..., i], cuts[..., i], spatial, machine), float(energy[i]), float(cycles[i])) for i in order]


def _encode(mapping: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """(dim index and factor of each slot [2, slot], all cuts but each operand's last [cut])."""
    slots = np.array([[INDEX[d] for d, _ in mapping.loops], [f for _, f in mapping.loops]], dtype=np.int64)
    return slots.reshape(2, -1), np.array([c for o in OPERANDS for c in mapping.cuts[o][:-1]], dtype=np.int64)


def _decode(slots: np.ndarray, cuts: np.ndarray, spatial: object, machine: Hierarchy) -> Mapping:
    n, at = slots.shape[1], 0
    found = {}
    for operand in OPERANDS:
        inner = len(machine.levels(operand)) - 1
        found[operand] = (*(int(c) for c in cuts[at : at + inner]), n)
        at += inner
    loops = tuple((DIMS[int(d)], int(f)) for d, f in slots.T)
    return Mapping(loops, spatial, found)  # type: ignore[arg-type]


def _neighbours(
    slots: np.ndarray, cuts: np.ndarray, machine: Hierarchy, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    n, many = slots.shape[1], slots.shape[-1]
    edges = np.cumsum([0, *(len(machine.levels(o)) - 1 for o in OPERANDS)]).tolist()
    orders, places = [], cuts.T.tolist()  # plain lists: a neighbour moves a few numbers
    for place in places:
        kind, order = rng.integers(0, 4), list(range(n))
        if kind != 0 and n > 1:  # move a loop
            for _ in range(int(rng.integers(1, 3))):
                a, b = rng.integers(0, n, 2)
                order.insert(int(b), order.pop(int(a)))
        if kind != 1 and place:  # move a cut
            c = int(rng.integers(0, len(place)))
            place[c] = min(max(place[c] + int(rng.integers(-3, 4)), 0), n)
            for low, high in zip(edges[:-1], edges[1:], strict=True):
                place[low:high] = sorted(place[low:high])
        orders.append(order)
    chosen = np.array(orders, dtype=np.int64).reshape(many, n).T
    return np.take_along_axis(slots, chosen[None], axis=1), np.array(places, dtype=np.int64).reshape(many, -1).T


def _score(
    slots: np.ndarray,
    cuts: np.ndarray,
    unrolled: Nest,
    shape: LayerShape,
    machine: Hierarchy,
    rules: Rules,
    slope: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(energy, cycles, energy + slope x cycles or inf where a memory is overfilled) of a batch."""
    many, at = slots.shape[-1], 0
    levels = []
    for operand in OPERANDS:
        inner = len(machine.levels(operand)) - 1
        levels.append((*(cuts[at + m] for m in range(inner)), np.full(many, slots.shape[1])))
        at += inner
    nest = Nest(slots[0], slots[1].astype(float), (levels[0], levels[1], levels[2]), unrolled.unroll, unrolled.whole,
                unrolled.span)  # fmt: skip
    found: Price = price(nest, shape, machine, rules, whole_units=unrolled.unroll == unrolled.whole)
    energy, cycles = (np.array(np.broadcast_to(x, (many,))) for x in (found.energy_pj, found.cycles.total))
    legal = np.ones(many, dtype=bool)
    for share in found.used_share.values():
        legal &= np.broadcast_to(share <= 1.0 + 1e-12, (many,))
    return energy, cycles, np.where(legal, energy + slope * cycles, np.inf)
