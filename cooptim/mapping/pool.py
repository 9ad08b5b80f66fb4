"""Mappings of one layer that are known already, priced again on other chips in one batch each."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from cooptim.hardware.hierarchy import Hierarchy
from cooptim.mapping.nest import LayerShape, Mapping, Nest, nest_of, stacked_nests
from cooptim.mapping.price import price
from cooptim.mapping.rules import Rules


@dataclasses.dataclass(frozen=True)
class PoolPrices:
    """Energy [pJ], cycles and whether it fits, of each mapping of a pool."""

    energy_pj: Float[np.ndarray, "mapping"]
    cycles: Float[np.ndarray, "mapping"]
    legal: Bool[np.ndarray, "mapping"]


class Pool:
    """Mappings of one layer shape; those of one unrolling are priced together, shorter ones with loops of 1 outside."""

    def __init__(self, name: str, shape: LayerShape) -> None:
        self.name, self.shape = name, shape
        self.mappings: list[Mapping] = []
        self._known: set[str] = set()
        self._groups: dict[str, tuple[list[int], list[Nest]]] = {}

    def add(self, mappings: Sequence[Mapping], machine: Hierarchy) -> None:
        """Takes in what is new; `machine` must hold the units that they use."""
        for mapping in mappings:
            spelled = repr(mapping)
            if spelled in self._known:
                continue
            self._known.add(spelled)
            places, nests = self._groups.setdefault(repr(mapping.spatial), ([], []))
            places.append(len(self.mappings))
            nests.append(nest_of(self.name, self.shape, mapping, machine))
            self.mappings.append(mapping)

    def prices(self, machine: Hierarchy, rules: Rules) -> PoolPrices:
        """All of them on a machine; what needs more units than it has does not fit."""
        n = len(self.mappings)
        energy, cycles, legal = np.full(n, math.inf), np.full(n, math.inf), np.zeros(n, dtype=bool)
        sizes = dict(machine.array)
        for places, nests in self._groups.values():
            spatial = self.mappings[places[0]].spatial
            if any(math.prod(units for _, units in loops) > sizes[axis] for axis, loops in spatial.items()):
                continue
            batch = stacked_nests(_equally_long(nests))
            found = price(batch, self.shape, machine, rules, whole_units=batch.unroll == batch.whole)
            energy[places], cycles[places] = found.energy_pj, found.cycles.total
            legal[places] = found.fits(len(places))
        return PoolPrices(energy, cycles, legal)

    def keep(self, which: Sequence[int]) -> "Pool":
        """A pool of some of them."""
        kept = Pool(self.name, self.shape)
        nests = {p: nest for places, nests in self._groups.values() for p, nest in zip(places, nests, strict=True)}
        for i in which:
            mapping = self.mappings[i]
            kept._known.add(repr(mapping))
            places, group = kept._groups.setdefault(repr(mapping.spatial), ([], []))
            places.append(len(kept.mappings))
            group.append(nests[i])
            kept.mappings.append(mapping)
        return kept


def _equally_long(nests: Sequence[Nest]) -> list[Nest]:
    """The nests with loops of 1 as outermost ones, so that all have as many."""
    most = max(len(n.dims) for n in nests)
    found = []
    for nest in nests:
        more = most - len(nest.dims)
        cuts = tuple((*c[:-1], most) for c in nest.cuts)
        dims, factors = np.append(nest.dims, np.zeros(more, dtype=np.int64)), np.append(nest.factors, np.ones(more))
        found.append(dataclasses.replace(nest, dims=dims, factors=factors, cuts=cuts))  # type: ignore[arg-type]
    return found
