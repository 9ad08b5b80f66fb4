"""The best mapping of a layer on a hierarchy, with a certificate.

Space: every order of the prime factors of the temporal loops, every uneven cut of each operand, every spatial unrolling
of one loop per array dimension (or one that is given). Energy: proven optimal, for `chains` is exact over that space.
Energy-delay product: the incumbent is the best, by the full price, of energy-optimal chains under rising limits on the
stall of single links, each with several orders of the loops between its cuts; its bound is the least product of
floors (`_floors`): energy and cycles that a mapping costs at least when its links alone stall within a limit, or for
longer, with all temporal steps and the systolic drain.

Not covered: loops split into factors that are no divisors, two loops on one array dimension, and, in the bound of the
energy-delay product, first fill, last drain, and what links that share a port stall beyond the worst of them.
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as AbstractMapping

import numpy as np

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.chains import Chain, best_chain, least_cost
from cooptim.mapping.lattice import CutTable, cut_table
from cooptim.mapping.nest import INDEX, LayerShape, Mapping, Nest, nest_of, stacked_nests
from cooptim.mapping.price import Price, price
from cooptim.mapping.rules import HARDWARE, Rules
from cooptim.workload import OPERANDS
from cooptim.workload.dims import DIMS

OBJECTIVES: tuple[str, ...] = ("energy", "edp")
LIMITS = 6  # of single-link stalls tried for the energy-delay product
BOUND_LIMITS = (0.02, 0.05, 0.1, 0.2, 0.4)  # of the stall, per temporal cycle, at which the bound takes a step
ORDERS = 16  # of the loops between cuts tried for each of them
Spatial = AbstractMapping[str, tuple[tuple[str, int], ...]]


@dataclasses.dataclass(frozen=True)
class Certificate:
    """The best mapping found for a layer, and what is proven of it.

    Attributes:
      objective: 'energy' [pJ] or 'edp' [pJ * cycles]; value and bound are in its unit.
      bound: no mapping of the space costs less. gap: value / bound - 1.
      space: number of mappings (orders x cuts x unrollings) that the statement covers, as a power of ten.
      cpu_s: process time of the search.
    """

    layer: str
    objective: str
    mapping: Mapping
    energy_pj: float
    cycles: float
    value: float
    bound: float
    space_log10: float
    cpu_s: float

    @property
    def gap(self) -> float:
        """Value over bound, less one; 0 is a proven optimum."""
        return self.value / self.bound - 1.0


def spatial_options(shape: LayerShape, machine: Hierarchy) -> list[dict[str, tuple[tuple[str, int], ...]]]:
    """Every unrolling of at most one loop per array dimension, as far as the array or the bound allows."""
    turning = [d for d in DIMS if shape.bounds[INDEX[d]] > 1]
    found = []
    for dims in itertools.product([None, *turning], repeat=len(machine.array)):
        option: dict[str, tuple[tuple[str, int], ...]] = {}
        left = {d: int(shape.bounds[INDEX[d]]) for d in turning}
        for (axis, size), dim in zip(machine.array, dims, strict=True):
            units = min(size, left[dim]) if dim else 1
            if dim and units > 1:
                option[axis] = ((dim, units),)
                left[dim] = math.ceil(left[dim] / units)
        if option not in found and closes(shape, option, machine):
            found.append(option)
    return found


def closes(shape: LayerShape, spatial: Spatial, machine: Hierarchy) -> bool:
    """Whether whole temporal loops make the bounds; a dim on two array dimensions may leave a fraction of one."""
    try:
        unrolled("", shape, spatial, machine)
    except ValueError:
        return False
    return True


def _space_log10(table: CutTable) -> float:
    """Orders of the prime factors times places of the cuts, as a power of ten."""
    powers = [n - 1 for n in table.lattice.shape]
    slots = sum(powers)
    orders = math.lgamma(slots + 1) - sum(math.lgamma(p + 1) for p in powers)
    cuts = sum(
        math.lgamma(slots + n + 1) - math.lgamma(slots + 1) - math.lgamma(n + 1)
        for n in (sum(c.level >= 0 for c in table.cuts[o]) for o in OPERANDS)
    )
    return (orders + cuts) / math.log(10)


def _segments(table: CutTable, chain: Chain) -> tuple[list[list[tuple[str, int]]], dict[str, list[int]]]:
    """(prime loops added between successive points, index of the last segment inside each cut)."""
    axes, top = table.lattice.axes, tuple(n - 1 for n in table.lattice.shape)
    at = tuple(0 for _ in axes)
    segments, ends = [], {operand: [] for operand in OPERANDS}  # type: ignore[var-annotated]
    for (operand, index), point in [*chain.places, ((None, 0), top)]:
        added = [(DIMS[axes[i][0]], axes[i][1]) for i, n in enumerate(point) for _ in range(n - at[i])]
        segments.append(added)
        at = point
        if operand is not None and table.cuts[operand][index].level >= 0:
            ends[operand].append(len(segments))
    return segments, ends


def _mappings(table: CutTable, chain: Chain, spatial: Spatial, orders: int, seed: int) -> list[Mapping]:
    """The chain as mappings that differ in the order of the loops between cuts."""
    segments, ends = _segments(table, chain)
    lengths = np.cumsum([len(s) for s in segments])
    cuts = {o: (*(int(lengths[e - 1]) for e in ends[o]), int(lengths[-1])) for o in OPERANDS}
    rng = np.random.default_rng(seed)
    found = []
    for attempt in range(orders):
        loops: list[tuple[str, int]] = []
        for segment in segments:
            order = range(len(segment)) if attempt == 0 else rng.permutation(len(segment))
            loops += [segment[i] for i in order]
        found.append(Mapping(tuple(loops), spatial, cuts))
    return found


def priced_together(name: str, shape: LayerShape, mappings: list[Mapping], machine: Hierarchy, rules: Rules) -> Price:
    """The price of many mappings with as many loops and one unrolling, in one batch (trailing axis)."""
    batch = stacked_nests([nest_of(name, shape, mapping, machine) for mapping in mappings])
    return price(batch, shape, machine, rules, whole_units=batch.unroll == batch.whole)


def _limits(table: CutTable) -> list[float]:
    """Stalls of single links to try, from none to any."""
    late = np.concatenate([cut.late_cycles[np.isfinite(cut.energy_pj)] for o in OPERANDS for cut in table.cuts[o]])
    late = np.unique(late[late > 0])
    steps = np.quantile(late, np.linspace(0.0, 0.5, LIMITS - 2)) if late.size else []
    return [math.inf, 0.0, *(float(s) for s in steps)]


@dataclasses.dataclass(frozen=True)
class Option:
    """One legal mapping with its full price."""

    mapping: Mapping
    energy_pj: float
    cycles: float


@dataclasses.dataclass(frozen=True)
class Offers:
    """What a layer may choose from, and what no mapping of its space undercuts (options empty: none was found).

    Attributes:
      floors: (energy [pJ], cycles) that no mapping of an unrolling undercuts, of each in which something may fit.
    """

    options: tuple[Option, ...]
    floors: tuple[tuple[float, float], ...]
    space_log10: float


def _offers(
    name: str,
    shape: LayerShape,
    machine: Hierarchy,
    rules: Rules,
    spatial: Spatial,
    limited: bool,
    orders: int,
    proven: bool = True,
) -> Offers:
    """The energy-optimal chains of one unrolling under rising limits on single-link stalls, in several orders each.

    Args:
      limited: try the limits; else only the least energy.
      proven: take more steps for the floors (a fifth of the time).
    """
    nest = unrolled(name, shape, spatial, machine)
    table = cut_table(name, shape, machine, rules, nest.unroll, nest.whole, nest.span)
    options: list[Option] = []
    leasts: dict[float, float] = {}
    seen: set[tuple[object, ...]] = set()
    for limit in _limits(table) if limited else [math.inf]:
        found = best_chain(table, _within(table, limit), machine)
        leasts[limit] = table.fixed_pj + found.bound
        if found.chain is None or found.chain.places in seen:
            continue
        seen.add(found.chain.places)
        mappings = _mappings(table, found.chain, spatial, orders, seed=0)
        options += _priced(name, shape, mappings, machine, rules)
    for limit in (share * table.cycles for share in BOUND_LIMITS if limited and proven):
        leasts[limit] = table.fixed_pj + least_cost(table, _within(table, limit), machine)
    return Offers(tuple(options), _floors(leasts, table), _space_log10(table))


def _within(table: CutTable, limit: float) -> dict[str, list[np.ndarray]]:
    """Energies of the cuts, inf where the link alone stalls for more cycles than a limit."""
    return {o: [np.where(c.late_cycles <= limit, c.energy_pj, np.inf) for c in table.cuts[o]] for o in OPERANDS}


def _floors(leasts: AbstractMapping[float, float], table: CutTable) -> tuple[tuple[float, float], ...]:
    """(energy, cycles) such that every mapping of an unrolling lies at or above one of them in both.

    A port stalls at least as long as each of its links alone were the level below double-buffered (`stalls`: no window
    is longer than its period, and what several links of a port lack adds up). So a mapping either keeps all links
    within a limit, and costs the least energy under it, or stalls longer than that limit.

    Args:
      leasts: least energy under each limit of the stall of single links; inf where no mapping keeps it.
    """
    found: list[tuple[float, float]] = []
    cycles = table.cycles + table.drain
    for limit in sorted(leasts):
        if math.isfinite(leasts[limit]) and not (found and leasts[limit] >= found[-1][0]):
            found.append((leasts[limit], cycles))
        cycles = table.cycles + table.drain + limit
    return tuple(found)


def _together(offers: Sequence[Offers]) -> Offers:
    """The offers of several unrollings as one; floors count where the search gave up before it found a mapping, too."""
    open_ones = [offer for offer in offers if offer.floors]
    return Offers(
        tuple(option for offer in open_ones for option in offer.options),
        tuple(floor for offer in open_ones for floor in offer.floors),
        math.log10(sum(10.0 ** min(offer.space_log10, 300.0) for offer in open_ones)) if open_ones else 0.0,
    )


def _priced(name: str, shape: LayerShape, mappings: list[Mapping], machine: Hierarchy, rules: Rules) -> list[Option]:
    found = priced_together(name, shape, mappings, machine, rules)
    energy = np.broadcast_to(found.energy_pj, (len(mappings),))
    cycles = np.broadcast_to(found.cycles.total, (len(mappings),))
    legal = np.flatnonzero(found.fits(len(mappings)))
    return [Option(mappings[i], float(energy[i]), float(cycles[i])) for i in legal]


def candidates(
    name: str,
    shape: LayerShape,
    machine: Hierarchy,
    rules: Rules,
    spatial: Spatial | Sequence[Spatial] | None,
    effort: int = 1,
    proven: bool = True,
) -> Offers:
    """Legal mappings of a layer that trade energy against cycles, and the layer's bounds; Pareto-optimal ones only.

    Args:
      spatial: one unrolling or several; all of `spatial_options` if None.
      effort: multiplies the orders tried; 0: one order.
      proven: whether the bounds matter; else they are valid, but looser.

    Raises ValueError where nothing fits into the memories.
    """
    given = [spatial] if isinstance(spatial, AbstractMapping) else spatial
    tried = list(given) if given is not None else spatial_options(shape, machine)
    orders = max(1, ORDERS * effort)
    found = _together([_offers(name, shape, machine, rules, option, True, orders, proven) for option in tried])
    if not found.options:
        raise _nothing_fits(name, machine)
    kept: list[Option] = []
    for option in sorted(found.options, key=lambda o: (o.energy_pj, o.cycles)):
        if not kept or option.cycles < kept[-1].cycles:
            kept.append(option)
    return dataclasses.replace(found, options=tuple(kept))


def _nothing_fits(name: str, machine: Hierarchy) -> ValueError:
    rooms = ", ".join(f"{m.name} {m.size_bits:g} bit" for m in machine.memories)
    return ValueError(
        f"{name}: no mapping fits into the memories of {machine.name} ({rooms}), even with the smallest tiles; "
        f"make the innermost memories larger or narrow the operands"
    )


def _value(objective: str, energy_pj: float, cycles: float) -> float:
    return energy_pj * cycles if objective == "edp" else energy_pj


def unrolled(name: str, shape: LayerShape, spatial: Spatial, machine: Hierarchy) -> Nest:
    """The unrolling of mappings whose temporal loops are yet to be chosen."""
    loops = []
    for dim in DIMS:
        units = math.prod(n for pairs in spatial.values() for d, n in pairs if d == dim)
        loops.append((dim, math.ceil(shape.bounds[INDEX[dim]] / units)))
    cuts = {o: (0,) * (len(machine.levels(o)) - 1) + (len(loops),) for o in OPERANDS}
    return nest_of(name, shape, Mapping(tuple(loops), spatial, cuts), machine)


def best_mapping(
    name: str,
    shape: LayerShape,
    machine: Hierarchy,
    rules: Rules = HARDWARE,
    objective: str = "energy",
    spatial: Iterable[Spatial] | None = None,
) -> Certificate:
    """The best mapping of one layer and a proven lower bound of the space the module states.

    Args:
      spatial: unrollings to choose from; all of `spatial_options` if None.

    Raises ValueError for an unknown objective and where nothing fits into the memories.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective '{objective}' is unknown; use one of {', '.join(OBJECTIVES)}")
    start = time.process_time()
    edp = objective == "edp"
    tried = list(spatial) if spatial is not None else spatial_options(shape, machine)
    found = _together([_offers(name, shape, machine, rules, option, edp, ORDERS if edp else 1) for option in tried])
    if not found.options:
        raise _nothing_fits(name, machine)
    best = min(found.options, key=lambda o: _value(objective, o.energy_pj, o.cycles))
    return certificate(name, objective, best, found, time.process_time() - start)


def certificate(name: str, objective: str, chosen: Option, offers: Offers, cpu_s: float) -> Certificate:
    """What is proven of a chosen mapping: the floors of all unrollings bound its value."""
    return Certificate(
        layer=name,
        objective=objective,
        mapping=chosen.mapping,
        energy_pj=chosen.energy_pj,
        cycles=chosen.cycles,
        value=_value(objective, chosen.energy_pj, chosen.cycles),
        bound=min(_value(objective, *floor) for floor in offers.floors),
        space_log10=offers.space_log10,
        cpu_s=cpu_s,
    )
