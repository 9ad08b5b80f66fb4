"""The search for a network's energy-delay product, and its local search, on a small case."""

import numpy as np
import pytest

from cooptim.hardware.hierarchy_file import load_hierarchy
from cooptim.mapping.nest import LayerShape, nest_of
from cooptim.mapping.network import best_network
from cooptim.mapping.polish import polish
from cooptim.mapping.price import price
from cooptim.mapping.rules import ZIGZAG
from cooptim.mapping.search import candidates, unrolled

CONV = LayerShape((1, 1, 32, 32, 8, 8, 3, 3), (1, 1), (1, 1), (8, 8), 8, 8, 16, 8)
DENSE = LayerShape((1, 1, 10, 64, 1, 1, 1, 1), (1, 1), (1, 1), (1, 1), 8, 8, 16, 8)
SPATIAL = {"D1": (("K", 10),), "D2": (("C", 16),)}


@pytest.fixture(scope="module")
def machine():
    return load_hierarchy("tpu_like")


def test_totals_are_the_prices_of_the_mappings_and_not_below_the_bound(machine):
    shapes = {"conv": CONV, "fc": DENSE, "again": CONV}
    found = best_network(shapes, machine, ZIGZAG, dict.fromkeys(shapes, SPATIAL))
    prices = [price(nest_of(n, s, found.mappings[n], machine), s, machine, ZIGZAG) for n, s in shapes.items()]
    assert found.energy_pj == pytest.approx(sum(float(p.energy_pj) for p in prices), rel=1e-12)
    assert found.cycles == pytest.approx(sum(float(p.cycles.total) for p in prices), rel=1e-12)
    assert found.bound <= found.edp
    assert all(float(np.max(share)) <= 1 for p in prices for share in p.used_share.values())


def test_local_search_never_ends_worse_than_it_began_and_stays_legal(machine):
    offers = candidates("conv", CONV, machine, ZIGZAG, SPATIAL)
    slope = offers.options[0].energy_pj / offers.options[0].cycles
    starts = [o.mapping for o in offers.options]
    found = polish(starts, unrolled("conv", CONV, SPATIAL, machine), CONV, machine, ZIGZAG, slope, rounds=4)
    best = min(o.energy_pj + slope * o.cycles for o in offers.options)
    mapping, energy, cycles = found[0]
    assert energy + slope * cycles <= best * (1 + 1e-12)
    again = price(nest_of("conv", CONV, mapping, machine), CONV, machine, ZIGZAG)
    assert float(again.energy_pj) == pytest.approx(energy, rel=1e-12)
    assert float(again.cycles.total) == pytest.approx(cycles, rel=1e-12)
