"""The mappings of a whole network of least (sum of energies) x (sum of cycles).

Each layer offers the candidates of its chains, and what a local search on the full price makes of the best of them. The
network's product is least where every layer minimises E + slope x T, slope = E_total / T_total: found by iterating the
slope. The bound is (sum of least energies) x (sum of cycles that no mapping avoids).
"""

import dataclasses
from collections.abc import Mapping as AbstractMapping

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.nest import LayerShape, Mapping
from cooptim.mapping.polish import polish
from cooptim.mapping.rules import HARDWARE, Rules
from cooptim.mapping.search import Offers, Option, Spatial, candidates, unrolled

ROUNDS = 2  # of the local search a layer, twice, at effort 1


@dataclasses.dataclass(frozen=True)
class NetworkMapping:
    """The chosen mapping of each layer, and the network's totals.

    Attributes:
      bound: of energy x cycles; no mappings of the space have less.
    """

    mappings: dict[str, Mapping]
    energy_pj: float
    cycles: float
    bound: float

    @property
    def edp(self) -> float:
        """Energy x cycles [pJ * cycles]."""
        return self.energy_pj * self.cycles


def best_network(
    shapes: AbstractMapping[str, LayerShape],
    machine: Hierarchy,
    rules: Rules = HARDWARE,
    spatial: AbstractMapping[str, Spatial] | None = None,
    effort: int = 1,
) -> NetworkMapping:
    """The network of least energy-delay product among the candidates of every layer.

    Args:
      spatial: unrolling of each layer; the search's choice of all where None.
      effort: multiplies the orders tried between cuts and the rounds of the local search.

    Raises ValueError where a layer does not fit into the memories.
    """
    offers: dict[str, Offers] = {}
    known: dict[tuple[LayerShape, str], Offers] = {}
    for name, shape in shapes.items():
        given = spatial[name] if spatial is not None else None
        key = (shape, repr(given))
        if key not in known:
            known[key] = candidates(name, shape, machine, rules, given, effort)
        offers[name] = known[key]
    chosen = _choose(offers)
    for _ in range(2 if effort else 0):
        slope = sum(o.energy_pj for o in chosen.values()) / sum(o.cycles for o in chosen.values())
        done: dict[int, Offers] = {}
        for name, shape in shapes.items():
            before = offers[name]
            if id(before) not in done:
                done[id(before)] = _polished(name, shape, before, machine, rules, slope, ROUNDS * effort)
        offers = {name: done[id(offer)] for name, offer in offers.items()}
        chosen = _choose(offers)
    return NetworkMapping(
        mappings={n: option.mapping for n, option in chosen.items()},
        energy_pj=sum(option.energy_pj for option in chosen.values()),
        cycles=sum(option.cycles for option in chosen.values()),
        bound=float(sum(o.least_energy_pj for o in offers.values()) * sum(o.least_cycles for o in offers.values())),
    )


def _choose(offers: AbstractMapping[str, Offers]) -> dict[str, Option]:
    """The option of each layer, by the slope of the network's product."""
    chosen = {n: min(o.options, key=lambda x: x.energy_pj * x.cycles) for n, o in offers.items()}
    for _ in range(20):
        slope = sum(o.energy_pj for o in chosen.values()) / sum(o.cycles for o in chosen.values())
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
