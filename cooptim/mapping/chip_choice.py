"""Legal choices for every layer of several networks on one chip: unrollings worth a search, and mappings that make the
goal of a network least.

Energy of a network is the sum over its layers plus leakage over its latency, so whatever the goal, its best choice is
among those that minimise energy + slope x cycles in every layer, for one slope: the lower hull of the sums, all of it
tried up to a grid of slopes. Choices between two vertices of the hull are not seen (`SLOPES` is dense).
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from cooptim.hardware.chip import Range
from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.chip_descent import Goal
from cooptim.mapping.nest import INDEX, LayerShape
from cooptim.mapping.pool import PoolPrices
from cooptim.mapping.search import Spatial, closes, spatial_options
from cooptim.workload.dims import DIMS

SLOPES = np.concatenate([[0.0], np.geomspace(1e-3, 1e3, 61), [1e9]])  # times energy over cycles


def _steps(shape: LayerShape, spatial: Spatial) -> float:
    """Temporal steps of an unrolling."""
    units = [math.prod(n for loops in spatial.values() for d, n in loops if d == dim) for dim in DIMS]
    return math.prod(math.ceil(bound / n) for bound, n in zip(shape.bounds, units, strict=True))


def _logs(spatial: Spatial, machine: Hierarchy) -> Float[np.ndarray, "axis dim"]:
    found = np.zeros((len(machine.array), len(DIMS)))
    for axis, (name, _) in enumerate(machine.array):
        for dim, units in spatial.get(name, ()):
            found[axis, INDEX[dim]] += math.log(units)
    return found


def rounded_units(
    shape: LayerShape, wanted: Float[np.ndarray, "axis dim"], machine: Hierarchy
) -> dict[str, tuple[tuple[str, int], ...]]:
    """Whole units near real ones, the two largest loops of each array dimension, as many as it and the bounds allow.

    Args:
      wanted: natural logarithms of the units.
    """
    left, found = {d: int(shape.bounds[INDEX[d]]) for d in DIMS}, {}
    for (name, size), logs in zip(machine.array, wanted, strict=True):
        first, second = (DIMS[i] for i in np.argsort(-logs)[:2])
        best: tuple[float, tuple[tuple[str, int], ...]] = (math.inf, ())
        for units in range(1, min(size, left[first]) + 1):
            rest = min(size // units, left[second])
            if logs[INDEX[second]] < math.log(1.5):
                rest = 1
            apart = abs(math.log(units) - logs[INDEX[first]]) + abs(math.log(rest) - logs[INDEX[second]])
            best = min(best, (apart, tuple((d, n) for d, n in ((first, units), (second, rest)) if n > 1)))
        if best[1]:
            found[name] = best[1]
            for dim, units in best[1]:
                left[dim] = math.ceil(left[dim] / units)
    return found


def unrollings(
    shape: LayerShape, machine: Hierarchy, wanted: Float[np.ndarray, "axis dim"] | None, most: int
) -> list[Spatial]:
    """The unrollings that keep the array busiest and, where some are wanted, those that are busy and near to them.

    Args:
      wanted: natural logarithms of real units, of a descent.
      most: of either kind.
    """
    tried: list[Spatial] = list(spatial_options(shape, machine))
    if wanted is not None:
        both = rounded_units(shape, wanted, machine)
        if both not in tried and closes(shape, both, machine):
            tried.append(both)
    slow = [math.log(_steps(shape, s)) for s in tried]
    order = sorted(range(len(tried)), key=lambda i: (slow[i], repr(tried[i])))[:most]
    if wanted is not None:
        apart = [float(np.abs(_logs(s, machine) - wanted).sum()) for s in tried]
        near = sorted(range(len(tried)), key=lambda i: (slow[i] + apart[i], repr(tried[i])))[:most]
        order = [*near, *(i for i in order if i not in near)]
    return [tried[i] for i in order]


def resized(spatial: Spatial, shape: LayerShape, before: Hierarchy, after: Hierarchy) -> Spatial | None:
    """An unrolling that filled its array dimensions, filling those of another array; None where it cannot."""
    found: dict[str, tuple[tuple[str, int], ...]] = {}
    for (axis, old), (_, new) in zip(before.array, after.array, strict=True):
        loops = spatial.get(axis, ())
        if len(loops) == 1 and (loops[0][1] == old or loops[0][1] > new):
            dim, units = loops[0]
            elsewhere = math.prod(n for a, p in spatial.items() if a != axis for d, n in p if d == dim)
            units = min(new, math.ceil(int(shape.bounds[INDEX[dim]]) / elsewhere))
            loops = ((dim, units),) if units > 1 else ()
        elif math.prod(n for _, n in loops) > new:
            return None
        if loops:
            found[axis] = tuple(loops)
    return found if closes(shape, found, after) else None


def least_choice(
    priced: Sequence[PoolPrices], times: Float[np.ndarray, "layer"], leakage_mw: float, clock_ghz: float, goal: Goal
) -> tuple[list[int], float, float]:
    """(mapping of each layer, energy [pJ], latency [ns]) of a network, the goal's objective least within its deadline.

    Args:
      priced: of each layer; at least one mapping of each must fit.

    A deadline that no slope meets: the fastest choice.
    """
    fits = [np.flatnonzero(p.legal) for p in priced]
    energies = [p.energy_pj[f] for p, f in zip(priced, fits, strict=True)]
    cycles = [p.cycles[f] for p, f in zip(priced, fits, strict=True)]
    least = [sum(n * float(x.min()) for n, x in zip(times, xs, strict=True)) for xs in (energies, cycles)]
    ways: dict[tuple[int, ...], tuple[float, float]] = {}
    for slope in SLOPES * (least[0] / least[1]) + leakage_mw / clock_ghz:
        at = tuple(int(np.argmin(e + slope * c)) for e, c in zip(energies, cycles, strict=True))
        if at not in ways:
            moved = sum(n * e[i] for n, e, i in zip(times, energies, at, strict=True))
            latency = sum(n * c[i] for n, c, i in zip(times, cycles, at, strict=True)) / clock_ghz
            ways[at] = (float(moved + leakage_mw * latency), float(latency))
    in_time = [a for a, (_, t) in ways.items() if goal.latency_ns is None or t <= goal.latency_ns * (1 + 1e-12)]

    def value(at: tuple[int, ...]) -> tuple[float, float]:
        energy, latency = ways[at]
        return {"energy": (energy, latency), "latency": (latency, energy), "edp": (energy * latency, energy)}[
            goal.objective
        ]

    best = min(in_time, key=value) if in_time else min(ways, key=lambda a: ways[a][1])
    return [int(f[i]) for f, i in zip(fits, best, strict=True)], *ways[best]


def size_moves(value: float, kind: Range, factors: Sequence[float]) -> list[float]:
    """Other values of a number to try: a step either way and these factors of it, as far as they can be built."""
    wanted = [value - kind.step, value + kind.step, *(value * f for f in factors)]
    return sorted({kind.nearest(w) for w in wanted} - {value})
