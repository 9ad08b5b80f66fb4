"""Chips sized by gradient: what they ask for, what they cost, and what can be built of them."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.hardware.chip import (
    Chip,
    Range,
    chip_area_mm2,
    chip_leakage_mw,
    chip_of,
    require_buildable,
    snapped_chip,
    with_chip,
)
from cooptim.hardware.hierarchy_file import load_hierarchy
from cooptim.mapping import chip_build, chip_choice, chip_descent
from cooptim.mapping.chip_descent import Goal, Load, descend_chips, log_cost, relaxed_chip, together
from cooptim.mapping.continuous import relaxed_price
from cooptim.mapping.legal import require_legal
from cooptim.mapping.nest import LayerShape, nest_of
from cooptim.mapping.pool import Pool, PoolPrices
from cooptim.mapping.price import price
from cooptim.mapping.rules import HARDWARE
from cooptim.mapping.search import candidates

CONV = LayerShape((1, 1, 16, 8, 8, 8, 3, 3), (1, 1), (1, 1), (8, 8), 8, 8, 24, 8)
DENSE = LayerShape((1, 1, 32, 64, 1, 1, 1, 1), (1, 1), (1, 1), (1, 1), 8, 8, 24, 8)
EDGE = load_hierarchy("edge_45nm")


def _free_gemmini():
    """Gemmini with free sides and one free port, areas and leakage to pay, and buffers from 64 bit on."""
    gemmini = load_hierarchy("gemmini")
    memories = []
    for memory in gemmini.memories[:-1]:
        first = dataclasses.replace(memory.ports[0], nominal_bits=memory.ports[0].bw_max_bits, area_mm2_per_bit=2e-5)
        if memory.name == "scratchpad":
            first = dataclasses.replace(first, limits_bits=(32.0, 512.0))
        ports = (first, *memory.ports[1:])
        paid = {"area_mm2_per_bit": 6e-7, "leakage_mw_per_bit": 1e-5}
        if memory.name != "register":
            paid |= {"min_bits": 64.0, "step_bits": 64.0, "size_table": (), "size_exponent": 0.5}
        memories.append(dataclasses.replace(memory, ports=ports, **paid))
    return dataclasses.replace(
        gemmini,
        memories=(*memories, gemmini.memories[-1]),
        array_limits=((4, 32, 2), (4, 32, 2)),
        mac_area_mm2=6e-4,
        mac_leakage_mw=2e-3,
    )


FREE = _free_gemmini()
SMALL = Load("small", {"conv": CONV, "again": CONV, "dense": DENSE}, {"dense": 3})
OTHER = Load("other", {"dense": DENSE}, weight=2.0)
GOAL = Goal("edp", "sum", area_mm2=0.5, latency_ns=1e5)
TIGHT = Goal("edp", area_mm2=0.3)
FAST = {"xla_backend_optimization_level": 0}  # to compile


@pytest.fixture(scope="module")
def loads():
    return together([SMALL, OTHER])


def _terms(found):
    """Every number of a relaxed chip by name."""
    chip = {**found.chip.sides, **found.chip.size_bits, **{".".join(k): v for k, v in found.chip.width_bits.items()}}
    return {
        **chip,
        **{f"excess {name}": x for name, x in found.excess.items()},
        "energy": found.energy_pj,
        "latency": found.latency_ns,
        "area": found.area_mm2,
        "leakage": found.leakage_mw,
    }


def test_equal_layers_of_a_network_are_one_entry_with_their_repeats(loads):
    assert loads.members == (("conv", "again"), ("dense",), ("dense",))
    assert loads.owners == ("small", "small", "other")
    assert loads.share.tolist() == [[2.0, 3.0, 0.0], [0.0, 0.0, 1.0]]


def test_area_and_leakage_of_a_chip_by_hand():
    """4 x 8 MACs; one w_reg a MAC, one i_reg a row, one accumulator a column, one of each buffer."""
    chip = Chip(
        {"rows": 4, "cols": 8},
        {
            "w_reg": 16.0,
            "i_reg": 24.0,
            "accumulator": 48.0,
            "w_buffer": 8192.0,
            "i_buffer": 16384.0,
            "o_buffer": 8000.0,
        },
        {},
    )
    machine = with_chip(EDGE, chip)
    registers = 32 * 16 * 3 + 4 * 24 * 3 + 8 * 48 * 1.5
    buffers = (8192 + 16384 + 8000) * 0.6 + 6 * 128 * 20
    assert float(chip_area_mm2(machine)) == pytest.approx((32 * 600 + registers + buffers) * 1e-6, rel=1e-12)
    held = 32 * 16 + 4 * 24 + 8 * 48 + 8192 + 16384 + 8000
    assert float(chip_leakage_mw(machine)) == pytest.approx(32 * 0.002 + held * 100 / 2**23, rel=1e-6)


def test_a_size_is_the_largest_tile_and_a_side_the_widest_unrolling(loads):
    """At very sharp maxima; the smooth ones lie above by at most layers^(1/sharpness)."""
    knobs = chip_descent.random_chip(jax.random.key(0), loads, FREE)
    at = jax.jit(lambda sharpness: relaxed_chip(knobs, loads, FREE, GOAL, sharpness=sharpness), compiler_options=FAST)
    sharp, soft = at(1e4), at(20.0)
    sized = with_chip(FREE, sharp.chip)
    held = relaxed_price(sharp.tile, loads.stack, sized, HARDWARE, 1e4).tile_bits
    spans = np.exp(np.sum(np.asarray(sharp.tile.units), axis=1))
    for i, name in enumerate(("rows", "cols")):
        assert float(sharp.chip.sides[name]) == pytest.approx(max(4.0, spans[i].max()), rel=1e-3)
    for memory in FREE.memories[1:-1]:
        widest = max(float(memory.min_bits), float(np.max(held[memory.name])))
        assert float(sharp.chip.size_bits[memory.name]) == pytest.approx(widest, rel=1e-3)
        assert sharp.chip.size_bits[memory.name] <= soft.chip.size_bits[memory.name] * (1 + 1e-9)
        assert soft.chip.size_bits[memory.name] <= sharp.chip.size_bits[memory.name] * 3 ** (1 / 20) * (1 + 1e-6)


def test_the_price_of_a_network_is_that_of_its_layers_and_leakage_over_its_latency(loads):
    knobs = chip_descent.random_chip(jax.random.key(1), loads, FREE)
    found = relaxed_chip(knobs, loads, FREE, GOAL)
    sized = with_chip(FREE, found.chip)
    layers = relaxed_price(found.tile, loads.stack, sized, HARDWARE, chip_descent.SHARPNESS[1])
    e, t = np.asarray(layers.energy_pj), np.asarray(layers.cycles)  # 1 GHz
    times = [2 * t[0] + 3 * t[1], t[2]]
    assert found.latency_ns == pytest.approx(np.array(times), rel=1e-12)
    moved = [2 * e[0] + 3 * e[1], e[2]]
    assert found.energy_pj == pytest.approx(np.array(moved) + float(found.leakage_mw) * np.array(times), rel=1e-12)
    assert float(found.excess["area"]) == pytest.approx(math.log(float(found.area_mm2) / 0.5))
    assert np.asarray(found.excess["latency"]) == pytest.approx(np.log(np.array(times) / 1e5))


@pytest.mark.unoptimized
def test_every_number_of_a_chip_has_the_gradient_of_central_differences(loads):
    """Each term along every knob in float64; knobs near nothing's kink."""
    knobs = chip_descent.random_chip(jax.random.key(5), loads, FREE, spread=0.5)
    flat, back = jax.flatten_util.ravel_pytree(knobs)
    names = list(_terms(relaxed_chip(knobs, loads, FREE, GOAL)))

    def terms(x):
        found = _terms(relaxed_chip(back(x), loads, FREE, GOAL, sharpness=20.0))
        return jnp.concatenate([jnp.atleast_1d(found[name]) for name in names])

    slopes, step = np.asarray(jax.jit(jax.jacrev(terms), compiler_options=FAST)(flat)), 1e-6
    value = jax.jit(jax.vmap(terms), compiler_options=FAST)
    shifts = step * np.eye(len(flat))
    differences = (np.asarray(value(flat + shifts)) - np.asarray(value(flat - shifts))).T / (2 * step)
    scale = np.maximum(np.abs(differences), 1e-3 * np.abs(np.asarray(terms(flat)))[:, None] + 1e-9)
    assert np.max(np.abs(slopes - differences) / scale) < 1e-4


@pytest.mark.unoptimized
def test_every_knob_moves_the_cost(loads):
    """Sizes and sides through the tilings, widths by themselves; widths of data through the stack."""
    knobs = chip_descent.random_chip(jax.random.key(5), loads, FREE, spread=0.5)

    def cost(knobs, w_bits):
        stack = dataclasses.replace(loads.stack, shape=dataclasses.replace(loads.stack.shape, w_bits=w_bits))
        found = relaxed_chip(knobs, loads, FREE, GOAL, sharpness=20.0, stack=stack)
        return log_cost(found.energy_pj, found.latency_ns, jnp.asarray(loads.weights), GOAL, 20.0)

    by_knob, by_bits = jax.jit(jax.grad(cost, argnums=(0, 1)), compiler_options=FAST)(knobs, jnp.full(3, 8.0))
    assert all(float(g) != 0 for g in by_knob.widths.values()) and set(by_knob.widths) == {"scratchpad.r"}
    assert np.all(np.asarray(by_bits) > 0)
    turning = np.array(loads.stack.shape.bounds) > 1
    assert np.all(np.any(np.asarray(by_knob.tilings.split) != 0, axis=1) == turning)


@pytest.mark.parametrize("combine", ["sum", "worst"])
@pytest.mark.parametrize("objective", ["energy", "latency", "edp"])
def test_networks_are_added_or_the_worst_one_counts(objective, combine):
    energy, latency, weights = np.array([3.0, 5.0]), np.array([7.0, 2.0]), np.array([1.0, 4.0])
    each = {"energy": [3.0, 20.0], "latency": [7.0, 8.0], "edp": [21.0, 40.0]}[objective]
    expected = sum(each) if combine == "sum" else max(each)
    goal = Goal(objective, combine)
    assert float(log_cost(energy, latency, weights, goal)) == pytest.approx(math.log(expected))
    smooth = float(log_cost(energy, latency, weights, goal, 20.0))
    assert math.log(expected) - 1e-12 <= smooth <= math.log(expected) + math.log(2) / 20


@pytest.fixture(scope="module")
def descended(loads):
    """A descent within a budget that binds: without it most of these chips are larger (to 0.56 mm2)."""
    return descend_chips(loads, FREE, TIGHT, starts=4, steps=200)


def test_a_descent_is_traced_once_lowers_its_loss_and_keeps_within_its_budget(loads, descended):
    assert np.all(descended.chips.area_mm2 < TIGHT.area_mm2 * 1.03)
    assert np.all(descended.trace[:, -1, 0] < descended.trace[:, 0, 0] - 1.0)
    traced = chip_descent._program()._cache_size()
    again = descend_chips(loads, FREE, TIGHT, starts=4, steps=200, seed=1)
    assert chip_descent._program()._cache_size() == traced
    assert not np.allclose(again.log_cost, descended.log_cost)


def test_starts_within_their_limits_come_first(descended):
    found = dataclasses.replace(
        descended, log_cost=np.array([1.0, 3.0, 2.0]), excess=np.array([0.5, 0.01, -1.0]), trace=np.zeros((3, 1, 2))
    )
    assert found.best() == [2, 1, 0]


@pytest.fixture(scope="module")
def built(loads, descended):
    bench = chip_build.Bench(loads, FREE, TIGHT)
    return (bench, *chip_build.built_chip(descended, bench, tries=1, sweeps=4))


def test_a_built_chip_is_legal_priced_in_full_and_close_to_its_relaxed_one(built):
    bench, chip, relaxed = built
    require_buildable(FREE, chip.chip)
    assert chip.legal and chip.area_mm2 <= TIGHT.area_mm2
    machine = with_chip(FREE, chip.chip)
    assert chip.area_mm2 == pytest.approx(float(chip_area_mm2(machine)))
    cost = 0.0
    for load, network in zip((SMALL, OTHER), chip.networks, strict=True):
        energy = cycles = 0.0
        for layer, mapping in network.mappings.items():
            shape = load.shapes[layer]
            found = price(nest_of(layer, shape, mapping, machine), shape, machine)
            require_legal(layer, found, shape, machine)
            energy += load.repeat(layer) * float(found.energy_pj)
            cycles += load.repeat(layer) * float(found.cycles.total)
        latency = cycles  # 1 GHz
        assert network.latency_ns == pytest.approx(latency, rel=1e-12)
        assert network.energy_pj == pytest.approx(energy + chip.leakage_mw * latency, rel=1e-12)
        cost += load.weight * network.energy_pj * network.latency_ns
    assert chip.log_cost == pytest.approx(math.log(cost), rel=1e-12)
    best = log_cost(relaxed.energy_pj, relaxed.latency_ns, bench.loads.weights, bench.goal)
    assert abs(chip.log_cost - float(best)) < 0.7


def test_a_budget_that_holds_counts_more_than_the_cost(built):
    """The chip of the file, 1.6 mm2, is no answer to 0.3, whatever it costs."""
    bench, chip, _ = built
    given = chip_build.given_chip(chip_build.Bench(bench.loads, FREE, bench.goal), tried=2)
    assert not given.legal and given.excess["area"] == pytest.approx(math.log(given.area_mm2 / 0.3))
    assert chip.rank < given.rank


def test_moves_end_where_no_number_alone_helps(built):
    """Checked by pricing all of them again with what is known at the end."""
    bench, ended, _ = built
    assert 0.0 <= ended.left < chip_build.ENOUGH
    for number in chip_build._numbers(FREE):
        for other in chip_build._moves(ended.chip, FREE, number):
            found = bench.price(other)
            assert (
                found is None or found.rank[0] > 0 or found.log_cost > ended.log_cost + math.log1p(-chip_build.ENOUGH)
            )


def test_what_can_be_built_of_a_range():
    kind = Range(24.0, 100.0, 24.0)
    assert [kind.snap(x) for x in (1.0, 24.0, 25.0, 72.5, 500.0)] == [24.0, 24.0, 48.0, 96.0, 96.0]
    assert [kind.nearest(x) for x in (35.0, 37.0, 96.5)] == [24.0, 48.0, 96.0]
    assert kind.holds(72.0) and not kind.holds(73.0) and not kind.holds(100.0)
    assert chip_choice.size_moves(48.0, kind, (0.5, 2.0)) == [24.0, 72.0, 96.0]


def test_snapping_goes_up_for_sizes_and_stays():
    chip = chip_of(EDGE)
    real = Chip(
        {"rows": 16.9, "cols": 15.1}, {**chip.size_bits, "w_reg": 25.0}, {**chip.width_bits, ("w_buffer", "r"): 33.0}
    )
    snapped = snapped_chip(EDGE, real)
    assert snapped.sides == {"rows": 16.0, "cols": 16.0}
    assert snapped.size_bits["w_reg"] == 32.0 and snapped.width_bits["w_buffer", "r"] == 40.0
    require_buildable(EDGE, snapped)
    assert snapped_chip(EDGE, snapped) == snapped


def test_a_pool_prices_as_each_mapping_alone_and_knows_what_does_not_fit():
    found = candidates(
        "conv", CONV, EDGE, HARDWARE, [{"rows": (("C", 8),), "cols": (("K", 16),)}, {"cols": (("OX", 8),)}]
    )
    mappings = [o.mapping for o in found.options]
    assert len({len(m.loops) for m in mappings}) >= 1
    pool = Pool("conv", CONV)
    pool.add([*mappings, *mappings], EDGE)
    assert pool.mappings == mappings  # each once
    prices = pool.prices(EDGE, HARDWARE)
    for i, option in enumerate(found.options):
        alone = price(nest_of("conv", CONV, option.mapping, EDGE), CONV, EDGE)
        assert (prices.energy_pj[i], prices.cycles[i]) == (float(alone.energy_pj), float(alone.cycles.total))
    assert prices.legal.all()
    narrow = with_chip(EDGE, dataclasses.replace(chip_of(EDGE), sides={"rows": 4, "cols": 4}))
    assert not pool.prices(narrow, HARDWARE).legal[[m.spatial.get("rows", ()) != () for m in mappings]].any()
    tiny = with_chip(EDGE, dataclasses.replace(chip_of(EDGE), size_bits={**chip_of(EDGE).size_bits, "o_buffer": 1.0}))
    assert not pool.prices(tiny, HARDWARE).legal.any()
    assert pool.keep([0]).prices(EDGE, HARDWARE).energy_pj.tolist() == [prices.energy_pj[0]]


def test_mappings_of_unequal_length_are_priced_together():
    options = candidates("dense", DENSE, EDGE, HARDWARE, [{"cols": (("K", 16),)}]).options
    short = options[0].mapping
    longer = dataclasses.replace(
        short,
        loops=(("K", 1), *short.loops),
        cuts={o: tuple(c + 1 for c in cuts) for o, cuts in short.cuts.items()},
    )
    pool = Pool("dense", DENSE)
    pool.add([longer, short], EDGE)
    prices = pool.prices(EDGE, HARDWARE)
    assert prices.energy_pj[0] == prices.energy_pj[1] == options[0].energy_pj
    assert prices.cycles[0] == prices.cycles[1] == options[0].cycles


def test_the_choice_of_a_network_is_that_of_all_combinations():
    """Three layers with four Pareto mappings each, 64 combinations; the hull holds the optimum of each goal here."""
    rng = np.random.default_rng(0)
    times, leakage, clock = np.array([1.0, 2.0, 5.0]), 3.0, 0.5
    for goal in (Goal("energy"), Goal("latency"), Goal("edp")):
        priced = [
            PoolPrices(np.sort(rng.uniform(50, 90, 4)), -np.sort(-rng.uniform(5, 9, 4)), np.array([True] * 4))
            for _ in range(3)
        ]
        combos = np.stack(np.meshgrid(*[range(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        energy = sum(times[i] * priced[i].energy_pj[combos[:, i]] for i in range(3))
        latency = sum(times[i] * priced[i].cycles[combos[:, i]] for i in range(3)) / clock
        energy = energy + leakage * latency
        value = {"energy": energy, "latency": latency, "edp": energy * latency}[goal.objective]
        at, found_energy, found_latency = chip_choice.least_choice(priced, times, leakage, clock, goal)
        got = {"energy": found_energy, "latency": found_latency, "edp": found_energy * found_latency}[goal.objective]
        assert got == pytest.approx(value.min(), rel=2e-3)
        row = int(np.flatnonzero((combos == at).all(axis=1))[0])
        assert (found_energy, found_latency) == pytest.approx((energy[row], latency[row]))
    cap = float(np.quantile(latency, 0.3))
    _, _, met = chip_choice.least_choice(priced, times, leakage, clock, Goal("energy", latency_ns=cap))
    assert met <= cap
    _, _, fastest = chip_choice.least_choice(priced, times, leakage, clock, Goal("energy", latency_ns=1e-3))
    assert fastest == pytest.approx(latency.min())


def test_a_mapping_that_does_not_fit_is_never_chosen():
    good = PoolPrices(np.array([1.0, 9.0]), np.array([1.0, 9.0]), np.array([False, True]))
    assert chip_choice.least_choice([good], np.ones(1), 0.0, 1.0, Goal("edp"))[0] == [1]


def test_unrollings_near_a_wish_come_first_and_fill_other_arrays():
    wanted = np.zeros((2, 8))
    wanted[0, 3], wanted[1, 2] = math.log(8), math.log(16)  # C 8 on rows, K 16 on cols
    first = chip_choice.unrollings(CONV, EDGE, wanted, 3)[0]
    assert first == {"rows": (("C", 8),), "cols": (("K", 16),)}
    both = np.zeros((2, 8))
    both[0, 3], both[0, 6] = math.log(4.2), math.log(2.9)
    assert chip_choice.rounded_units(CONV, both, EDGE)["rows"] == (("C", 4), ("FY", 3))
    wide = with_chip(EDGE, dataclasses.replace(chip_of(EDGE), sides={"rows": 4, "cols": 32}))
    assert chip_choice.resized(first, CONV, EDGE, wide) == {"rows": (("C", 4),), "cols": (("K", 16),)}
    narrow = with_chip(EDGE, dataclasses.replace(chip_of(EDGE), sides={"rows": 16, "cols": 8}))
    assert chip_choice.resized(first, CONV, EDGE, narrow) == {"rows": (("C", 8),), "cols": (("K", 8),)}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Goal("delay"), "goal: objective 'delay' is unknown; use one of energy, edp, latency"),
        (lambda: Goal(combine="mean"), "goal: combine 'mean' is unknown; use one of sum, worst"),
        (lambda: Goal(area_mm2=0.0), "goal: area_mm2 0.0; legal: above 0"),
        (lambda: together([]), "networks none: legal: one or more"),
        (lambda: together([SMALL, SMALL]), "networks small, small: legal: one or more, each name once"),
        (lambda: together([Load("x", {})]), "network x: 0 layers, weight 1.0; legal: at least one layer"),
        (lambda: together([Load("x", {"a": CONV}, weight=-1.0)]), "network x: 1 layers, weight -1.0; legal"),
        (lambda: chip_descent.require_free(load_hierarchy("tpu_like")), "machine tpu_like: its file frees no number"),
        (
            lambda: require_buildable(EDGE, Chip({}, {"w_reg": 9.0}, {})),
            "size of w_reg is 9 bit; legal: 8 to 8192 in steps of 8",
        ),
        (lambda: require_buildable(EDGE, Chip({}, {}, {("dram", "rw"): 9.0})), "width of dram.rw is not free"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_a_remedy(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_layer_that_fits_in_no_chip_is_named():
    huge = dataclasses.replace(CONV, w_bits=1e5)
    loads = together([Load("net", {"huge": huge})])
    with pytest.raises(ValueError, match="^net: huge: no mapping fits into the memories of edge_45nm"):
        chip_build.given_chip(chip_build.Bench(loads, EDGE, Goal()))
