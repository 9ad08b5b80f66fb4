"""The mappings of a whole network of least (sum of energies) x (sum of cycles).

Each layer offers the candidates of its chains, and what a local search on the full price makes of the best of them. The
network's product is least where every layer minimises E + slope x T, slope = E_total / T_total: found by iterating the
slope.

Bound. In each unrolling of a layer no mapping undercuts an energy E_u and cycles T_u. The product of two sums is
quasiconcave, so it is least over all choices of an unrolling for each layer at a vertex of the sum of the layers'
convex hulls, and each vertex minimises E + slope x T for some slope in all layers at once: all slopes are tried.
"""

import dataclasses
import time
from collections.abc import Mapping as AbstractMapping
from collections.abc import Sequence

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.nest import LayerShape, Mapping
from cooptim.mapping.polish import polish
from cooptim.mapping.rules import HARDWARE, Rules
from cooptim.mapping.search import Certificate, Offers, Option, Spatial, candidates, certificate, unrolled

ROUNDS = 2  # of the local search a layer, twice, at effort 1


@dataclasses.dataclass(frozen=True)
class NetworkMapping:
    """The chosen mapping of each layer, and the network's totals.

    Attributes:
      bound: of energy x cycles; no mappings of the space have less.
      certificates: of each layer; value and bound of its own product. Equal layers share their search and its time.
    """

    mappings: dict[str, Mapping]
    energy_pj: float
    cycles: float
    bound: float
    certificates: dict[str, Certificate]

    @property
    def edp(self) -> float:
        """Energy x cycles [pJ * cycles]."""
        return self.energy_pj * self.cycles


def best_network(
    shapes: AbstractMapping[str, LayerShape],
    machine: Hierarchy,
    rules: Rules = HARDWARE,
    spatial: AbstractMapping[str, Spatial | Sequence[Spatial]] | None = None,
    effort: int = 1,
    repeats: AbstractMapping[str, int] | None = None,
) -> NetworkMapping:
    """The network of least energy-delay product among the candidates of every layer.

    Args:
      spatial: unrolling of each layer, or several to choose from; the search's choice of all where None.
      effort: multiplies the orders tried between cuts and the rounds of the local search.
      repeats: executions of each layer in one inference; 1 where None.

    Raises ValueError where a layer does not fit into the memories.
    """
    times = {name: 1 if repeats is None else repeats[name] for name in shapes}
    keys = {name: (shape, repr(spatial[name] if spatial is not None else None)) for name, shape in shapes.items()}
    known: dict[tuple[LayerShape, str], Offers] = {}
    cpu_s: dict[tuple[LayerShape, str], float] = {}
    for name, shape in shapes.items():
        if keys[name] not in known:
            start = time.process_time()
            given = spatial[name] if spatial is not None else None
            known[keys[name]] = candidates(name, shape, machine, rules, given, effort)
            cpu_s[keys[name]] = time.process_time() - start
    chosen = _choose({name: known[key] for name, key in keys.items()}, times)
    for _ in range(2 if effort else 0):
        energy, cycles = _totals(chosen, times)
        for key, before in known.items():
            start = time.process_time()
            name = next(n for n in shapes if keys[n] == key)
            known[key] = _polished(name, key[0], before, machine, rules, energy / cycles, ROUNDS * effort)
            cpu_s[key] += time.process_time() - start
        chosen = _choose({name: known[key] for name, key in keys.items()}, times)
    energy, cycles = _totals(chosen, times)
    return NetworkMapping(
        mappings={n: option.mapping for n, option in chosen.items()},
        energy_pj=energy,
        cycles=cycles,
        bound=least_product([known[keys[name]].floors for name in shapes], [times[name] for name in shapes]),
        certificates={n: certificate(n, "edp", chosen[n], known[keys[n]], cpu_s[keys[n]]) for n in shapes},
    )


def least_product(floors: Sequence[Sequence[tuple[float, float]]], times: Sequence[int]) -> float:
    """Least (sum of energies) x (sum of cycles) when each layer takes one of its (energy, cycles) floors.

    Args:
      times: executions of each layer.
    """
    slopes = {0.0}
    for points in floors:
        for e, t in points:
            slopes |= {(e - e2) / (t2 - t) for e2, t2 in points if t2 > t and e > e2}
    edges = sorted(slopes)
    # One slope inside every interval between two at which some layer changes its choice.
    tried = [(a + b) / 2.0 for a, b in zip(edges[:-1], edges[1:], strict=True)] + [2.0 * edges[-1] + 1.0]
    least = float("inf")
    for slope in tried:
        taken = [min(points, key=lambda p: p[0] + slope * p[1]) for points in floors]
        energy, cycles = (sum(n * p[i] for n, p in zip(times, taken, strict=True)) for i in range(2))
        least = min(least, energy * cycles)
    return float(least)


def _totals(chosen: AbstractMapping[str, Option], times: AbstractMapping[str, int]) -> tuple[float, float]:
    """(energy [pJ], cycles) of the network."""
    return sum(times[n] * o.energy_pj for n, o in chosen.items()), sum(times[n] * o.cycles for n, o in chosen.items())


def _choose(offers: AbstractMapping[str, Offers], times: AbstractMapping[str, int]) -> dict[str, Option]:
    """The option of each layer, by the slope of the network's product."""
    chosen = {n: min(o.options, key=lambda x: x.energy_pj * x.cycles) for n, o in offers.items()}
    for _ in range(20):
        energy, cycles = _totals(chosen, times)
        slope = energy / cycles
        again = {n: min(o.options, key=lambda x: x.energy_pj + slope * x.cycles) for n, o in offers.items()}
        if again == chosen:
            break
        chosen = again
    return chosen


def _polished(
    name: str, shape: LayerShape, offers: Offers, machine: Hierarchy, rules: Rules, slope: float, rounds: int
) -> Offers:
    """The offers with what a local search finds from the best of them."""
    ranked = sorted(offers.options, key=lambda o: o.energy_pj + slope * o.cycles)
    spatial = ranked[0].mapping.spatial
    starts = [o.mapping for o in ranked if o.mapping.spatial == spatial]
    found = polish(starts, unrolled(name, shape, spatial, machine), shape, machine, rules, slope, rounds)
    options = (*offers.options, *(Option(m, e, t) for m, e, t in found))
    return dataclasses.replace(offers, options=options)
