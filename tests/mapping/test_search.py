"""The search against brute force over every order of prime loops and every uneven cut."""

import dataclasses
import itertools
import random

import numpy as np
import pytest

from cooptim.hardware.hierarchy import Hierarchy, Memory, Port
from cooptim.mapping.chains import best_chain
from cooptim.mapping.lattice import cut_table, lattice, prime_factors
from cooptim.mapping.nest import INDEX, LayerShape, Mapping
from cooptim.mapping.rules import HARDWARE, ZIGZAG
from cooptim.mapping.search import best_mapping, candidates, priced_together, spatial_options, unrolled
from cooptim.workload.dims import DIMS

ALL = ("read_to_low", "write_from_low", "read_to_high", "write_from_high")


def memory(name, operands, size, cost, served, width=16.0, granule=8.0):
    port = Port("rw", "read_write", tuple((o, d) for o in operands for d in ALL), width, granule)
    return Memory(
        name,
        operands,
        served,
        "room",
        (port,),
        float(size),
        cost,
        1.3 * cost,
        float(size),
        0.0,
        0.0,
        1e12,
        1.0,
        0.0,
        0.0,
    )


def machine(rng, levels):
    """Two to four levels, operands bypassing some, with memories small enough to bind."""
    array = (("D1", rng.choice([1, 2])), ("D2", rng.choice([1, 3])))
    dims = ("D1", "D2")
    found = [
        memory("reg_w", ("W",), rng.choice([8, 16, 64]), 0.1, ()),
        memory("reg_o", ("O",), rng.choice([24, 48, 96]), 0.2, rng.choice([(), ("D2",)]), 24.0, 24.0),
    ]
    if levels == 4:
        found.append(memory("small", ("W", "I"), rng.choice([96, 160, 300]), 0.9, dims))
    if levels >= 3:
        found.append(memory("big", ("W", "I", "O")[rng.choice([0, 1]) :], rng.choice([200, 400, 900]), 5.0, dims, 32.0))
    found.append(memory("dram", ("W", "I", "O"), 1e12, 60.0, dims, 64.0, 64.0))
    return Hierarchy("random", array, (), tuple(found), 0.3, 1.0)


def layer(rng, factors=4):
    """So many prime factors over the loops."""
    bounds = [1] * len(DIMS)
    for _ in range(factors):
        bounds[rng.randrange(len(DIMS))] *= rng.choice([2, 3])
    stride = rng.choice([1, 1, 2])
    i = {d: bounds[INDEX[d]] for d in DIMS}
    size = tuple((i[o] - 1) * stride + i[f] for o, f in (("OY", "FY"), ("OX", "FX")))
    return LayerShape(tuple(bounds), (stride, stride), (1, 1), size, 8, 8, 24, 8)


def slow(machine_, rng):
    """The machine with a narrow port for each operand and direction, where the stall of a link stands alone."""

    def narrow(m):
        pairs = [(o, d) for o in m.operands for d in ALL]
        ports = tuple(
            Port(f"p{i}", "read_write", (pair,), float(rng.choice([2, 4, 8, 16])), 1.0) for i, pair in enumerate(pairs)
        )
        return dataclasses.replace(m, ports=ports)

    return dataclasses.replace(machine_, memories=tuple(map(narrow, machine_.memories)))


def every_mapping(shape, machine_, spatial):
    slots = []
    for dim in DIMS:
        units = np.prod([n for pairs in spatial.values() for d, n in pairs if d == dim])
        slots += [(dim, p) for p in prime_factors(int(np.ceil(shape.bounds[INDEX[dim]] / units)))]
    n = len(slots)
    per_operand = [
        [(*c, n) for c in itertools.combinations_with_replacement(range(n + 1), len(machine_.levels(o)) - 1)]
        for o in "WIO"
    ]
    for order in sorted(set(itertools.permutations(slots))):
        for w, i, o in itertools.product(*per_operand):
            yield Mapping(order, spatial, {"W": w, "I": i, "O": o})


def brute_force(shape, machine_, spatial, rules):
    """Least energy of all legal mappings, each cut priced as it stands; inf where none fits."""
    mappings = list(every_mapping(shape, machine_, spatial))
    found = priced_together("tiny", shape, mappings, machine_, rules)
    legal = np.ones(len(mappings), dtype=bool)
    for share in found.used_share.values():
        legal &= np.broadcast_to(share <= 1, legal.shape)
    return float(np.min(np.where(legal, found.energy_pj, np.inf))), len(mappings)


@pytest.mark.parametrize("seed", range(60))
def test_energy_is_the_least_of_all_orders_and_uneven_cuts(seed):
    rng = random.Random(seed)
    levels = rng.choice([2, 3, 3, 3, 4])
    shape = layer(rng, factors=3 if levels == 4 else 4)
    machine_ = machine(rng, levels)
    rules = rng.choice([HARDWARE, ZIGZAG])
    spatial = rng.choice(spatial_options(shape, machine_))
    least, tried = brute_force(shape, machine_, spatial, rules)
    if not np.isfinite(least):
        with pytest.raises(ValueError, match="no mapping fits"):
            best_mapping("tiny", shape, machine_, rules, "energy", [spatial])
        return
    found = best_mapping("tiny", shape, machine_, rules, "energy", [spatial])
    assert tried > 1 or max(shape.bounds) <= 3
    assert found.energy_pj == pytest.approx(least, rel=1e-12)
    assert found.bound == pytest.approx(least, rel=1e-12)


def test_bound_of_the_energy_delay_product_is_below_every_mapping():
    for seed in range(8):
        rng = random.Random(100 + seed)
        shape, machine_ = layer(rng, factors=3), machine(rng, 3)
        spatial = spatial_options(shape, machine_)[-1]
        mappings = list(every_mapping(shape, machine_, spatial))
        found = priced_together("tiny", shape, mappings, machine_, ZIGZAG)
        legal = np.ones(len(mappings), dtype=bool)
        for share in found.used_share.values():
            legal &= np.broadcast_to(share <= 1, legal.shape)
        if not legal.any():
            continue
        least = float(np.min(np.where(legal, found.energy_pj * found.cycles.total, np.inf)))
        certificate = best_mapping("tiny", shape, machine_, ZIGZAG, "edp", [spatial])
        assert certificate.bound <= least * (1 + 1e-12) <= certificate.value * (1 + 2e-12)


@pytest.mark.parametrize("levels", [2, 3])
def test_floors_lie_below_every_mapping_in_energy_and_cycles_at_once(levels):
    """Stalls are in the bound: each legal mapping has a floor that it undercuts in neither."""
    steps = 0
    for seed in range(40):
        rng = random.Random(1000 * levels + seed)
        shape, machine_ = layer(rng, factors=3), slow(machine(rng, levels), rng)
        rules = rng.choice([HARDWARE, ZIGZAG])
        spatial = rng.choice(spatial_options(shape, machine_))
        mappings = list(every_mapping(shape, machine_, spatial))
        found = priced_together("tiny", shape, mappings, machine_, rules)
        legal = np.ones(len(mappings), dtype=bool)
        for share in found.used_share.values():
            legal &= np.broadcast_to(share <= 1, legal.shape)
        if not legal.any():
            continue
        energy, cycles = (np.broadcast_to(x, legal.shape)[legal] for x in (found.energy_pj, found.cycles.total))
        floors = candidates("tiny", shape, machine_, rules, spatial).floors
        above = np.zeros(energy.shape, dtype=bool)
        for e, t in floors:
            above |= (energy >= e * (1 - 1e-12)) & (cycles >= t * (1 - 1e-12))
        assert above.all()
        assert min(e * t for e, t in floors) <= float(np.min(energy * cycles)) * (1 + 1e-12)
        steps += len(floors) > 1
    assert steps > 0


def test_tiles_in_a_shared_memory_fit_together():
    rng = random.Random(3)
    shape = LayerShape((1, 1, 2, 4, 2, 1, 1, 1), (1, 1), (1, 1), (2, 1), 8, 8, 24, 8)
    machine_ = machine(rng, 3)
    shared = dataclasses.replace(machine_.memories[2], operands=("W", "I", "O"), size_bits=60.0)
    machine_ = dataclasses.replace(machine_, memories=(*machine_.memories[:2], shared, machine_.memories[3]))
    least, _ = brute_force(shape, machine_, {}, HARDWARE)
    table = cut_table("tiny", shape, machine_, HARDWARE, ((1.0,) * 8,) * 2, ((1.0,) * 8,) * 2, (1.0, 1.0))
    found = best_chain(table, {o: [c.energy_pj for c in table.cuts[o]] for o in "WIO"}, machine_)
    assert table.fixed_pj + found.bound == pytest.approx(least, rel=1e-12)
    assert found.boxes > 1  # alone, each tile would be larger


def test_too_many_divisors_are_refused_with_the_figure():
    with pytest.raises(ValueError, match="conv1: .* sets of loops .*K 5040.*at most 200000"):
        lattice("conv1", (1, 1, 5040, 5040, 5040, 1, 1, 1))


def test_an_unknown_objective_names_the_legal_ones():
    shape = LayerShape((1, 1, 2, 2, 1, 1, 1, 1), (1, 1), (1, 1), (1, 1), 8, 8, 24, 8)
    with pytest.raises(ValueError, match="'delay' is unknown; use one of energy, edp"):
        best_mapping("fc", shape, machine(random.Random(0), 3), objective="delay")


@pytest.mark.parametrize("seed", range(8))
def test_a_search_that_gives_up_still_offers_a_legal_chain_above_its_bound(seed):
    rng = random.Random(seed)
    machine_, shape = machine(rng, 4), layer(rng, 6)
    spatial = rng.choice(spatial_options(shape, machine_))
    nest = unrolled("l", shape, spatial, machine_)
    table = cut_table("l", shape, machine_, HARDWARE, nest.unroll, nest.whole, nest.span)
    costs = {o: [c.energy_pj for c in table.cuts[o]] for o in "WIO"}
    proven, early = (best_chain(table, costs, machine_, max_boxes=n) for n in (10_000, 1))
    if early.chain is None:  # not even a chain within the shares fits
        return
    assert early.bound <= proven.bound * (1 + 1e-12) and proven.bound <= early.chain.cost * (1 + 1e-12)
    for index, memory_ in enumerate(machine_.memories):
        used = sum(
            float(cut.tile_bits[early.chain.point((o, i))])
            for o in "WIO" for i, cut in enumerate(table.cuts[o]) if cut.memory == index
        )  # fmt: skip
        assert used <= memory_.size_bits
