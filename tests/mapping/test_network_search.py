"""The search for a network's energy-delay product, and its local search, on a small case."""

import itertools
import math
import random

import numpy as np
import pytest

from cooptim.hardware.hierarchy_file import load_hierarchy
from cooptim.mapping import search
from cooptim.mapping.chains import Found
from cooptim.mapping.nest import LayerShape, nest_of
from cooptim.mapping.network import best_network, least_product
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


def test_the_bound_is_the_least_product_over_every_choice_of_floors():
    rng = random.Random(0)
    for _ in range(200):
        floors = [[(rng.uniform(1, 9), rng.uniform(1, 9)) for _ in range(rng.randint(1, 5))] for _ in range(4)]
        times = [rng.randint(1, 3) for _ in floors]
        totals = (
            [sum(n * p[i] for n, p in zip(times, taken, strict=True)) for i in range(2)]
            for taken in itertools.product(*floors)
        )
        assert least_product(floors, times) == pytest.approx(min(math.prod(t) for t in totals), rel=1e-12)


def test_repeats_weigh_a_layer_like_as_many_layers(machine):
    once = best_network({"conv": CONV, "a": DENSE, "b": DENSE, "c": DENSE}, machine, ZIGZAG, effort=0)
    found = best_network({"conv": CONV, "fc": DENSE}, machine, ZIGZAG, effort=0, repeats={"conv": 1, "fc": 3})
    assert (found.energy_pj, found.cycles) == pytest.approx((once.energy_pj, once.cycles), rel=1e-12)
    assert found.bound == pytest.approx(once.bound, rel=1e-12) and found.bound <= found.edp
    assert found.mappings == {"conv": once.mappings["conv"], "fc": once.mappings["a"]}
    own = found.certificates["fc"]
    assert own.value == own.energy_pj * own.cycles and own.bound <= own.value


def test_an_unrolling_whose_search_gave_up_still_bounds_the_layer(machine, monkeypatch):
    options = [SPATIAL, {"D1": (("K", 5),), "D2": (("C", 16),)}]
    alone = search.best_mapping("fc", DENSE, machine, ZIGZAG, "energy", [SPATIAL])
    honest = search.best_chain

    def gives_up(table, costs, machine_, *rest):
        found = honest(table, costs, machine_, *rest)
        return Found(None, 1.0, found.boxes) if table.cycles > 4 * DENSE.macs / 640 else found

    monkeypatch.setattr(search, "best_chain", gives_up)  # the second unrolling has 5 x 16 units: 8 cycles, the first 4
    found = search.best_mapping("fc", DENSE, machine, ZIGZAG, "energy", options)
    assert found.energy_pj == alone.energy_pj and found.bound < alone.bound


def test_chains_under_a_limit_on_stalls_trade_energy_for_cycles(machine):
    """Nine rows of two channels: whatever the order, the chain of least energy waits for a port that another spares."""
    shape = LayerShape((1, 1, 2, 1, 9, 8, 1, 2), (1, 1), (1, 1), (9, 9), 8, 8, 16, 8)
    spatial = {"D1": (("K", 2),), "D2": (("OY", 9),)}
    cheapest = search._offers("x", shape, machine, ZIGZAG, spatial, False, search.ORDERS).options
    offered = candidates("x", shape, machine, ZIGZAG, spatial).options
    assert min(o.cycles for o in offered) < min(o.cycles for o in cheapest)
    assert min(o.energy_pj for o in offered) == min(o.energy_pj for o in cheapest)
