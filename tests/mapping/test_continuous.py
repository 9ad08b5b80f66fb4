"""The continuous relaxation: exact at whole factors, right in its gradients; tilings descended, rounded and legal."""

import dataclasses
import math
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.hardware.hierarchy import Hierarchy, Memory, Port
from cooptim.hardware.hierarchy_file import hierarchy_names, load_hierarchy
from cooptim.mapping import continuous, even, tile_descent
from cooptim.mapping import stack as stack_of
from cooptim.mapping.legal import demand_bits, require_legal
from cooptim.mapping.nest import LayerShape, nest_of
from cooptim.mapping.price import price
from cooptim.mapping.rules import HARDWARE, ZIGZAG
from cooptim.mapping.search import best_mapping, unrolled
from cooptim.mapping.tiers import memory_tiers, operand_tiers, tier_count
from cooptim.workload import OPERANDS
from cooptim.workload.dims import DIMS

SHAPE = LayerShape((2, 1, 16, 12, 6, 8, 3, 3), (1, 1), (1, 1), (8, 10), 8, 8, 24, 8)
SPATIAL = {
    "gemmini": {"rows": (("C", 4),), "cols": (("K", 8),)},
    "tpu_like": {"D1": (("K", 8),), "D2": (("C", 4),)},
    "eyeriss_like": {"D1": (("OY", 6),), "D2": (("K", 4), ("FY", 3))},
    "meta_prototype": {"D1": (("K", 16),), "D2": (("C", 2),), "D3": (("OX", 4),), "D4": (("OY", 3),)},
    "envision": {"rows": (("K", 16),), "cols": (("OX", 8),)},
    "edge_45nm": {"rows": (("C", 12),), "cols": (("K", 16),)},
}
MACHINES = sorted(SPATIAL)


pytestmark = pytest.mark.unoptimized


@pytest.fixture(params=MACHINES)
def machine(request):
    return load_hierarchy(request.param)


def _random_factors(rng, bounds, slots):
    """[slot, dim] of whole factors."""
    found = np.ones((slots, len(DIMS)), dtype=int)
    for d, bound in enumerate(bounds):
        for prime in even.prime_factors(bound):
            found[rng.randrange(slots), d] *= prime
    return found


def _temporal(nest):
    return [round(SHAPE.bounds[i] / math.prod(row[i] for row in nest.unroll)) for i in range(len(DIMS))]


def _moving_first(factors, operand, slot):
    """Whether the slot has a loop of its stationary operand innermost (or none at all): only then is that its order."""
    rest = [i for i in range(len(DIMS)) if i not in continuous.IRRELEVANT[operand] and factors[slot, i] > 1]
    idle = [i for i in continuous.IRRELEVANT[operand] if factors[slot, i] > 1]
    return bool(idle) or not rest


def test_machines_of_the_package_are_all_covered():
    assert sorted(hierarchy_names()) == MACHINES


def test_tiers_put_memories_side_by_side():
    assert memory_tiers(load_hierarchy("eyeriss_like")) == (0, 0, 0, 1, 1, 2, 3)
    gemmini = operand_tiers(load_hierarchy("gemmini"))
    assert gemmini == {"W": (0, 1, 2), "I": (1, 2), "O": (0, 2)}  # outputs pass the scratchpad by


@pytest.mark.parametrize("rules", [HARDWARE, ZIGZAG], ids=lambda r: r.name)
def test_at_whole_factors_energy_and_tiles_are_those_of_the_exact_price(machine, rules):
    """40 random mappings a machine side by side, packing off."""
    rng, spatial = random.Random(7), SPATIAL[machine.name]
    nest, slots = unrolled("l", SHAPE, spatial, machine), tier_count(machine)
    plain = dataclasses.replace(rules, pack="none")
    drawn = []
    while len(drawn) < 40:
        factors = _random_factors(rng, _temporal(nest), slots)
        stay = [rng.randrange(3) for _ in range(slots)]
        if all(_moving_first(factors, OPERANDS[s], k) for k, s in enumerate(stay)):
            drawn.append((factors, np.array(stay)))
    names = [str(n) for n in range(len(drawn))]
    stack = stack_of.stack_layers(names, [SHAPE] * 40, [1.0] * 40, [nest] * 40)
    tile = stack_of.Tiling(
        jnp.asarray(np.log(np.stack([factors for factors, _ in drawn], axis=-1))),
        jnp.asarray(np.log(stack.unroll)),
        jnp.asarray(np.stack([np.eye(3)[stay] for _, stay in drawn], axis=-1)),
    )
    found = jax.tree.map(np.asarray, dataclasses.asdict(continuous.relaxed_price(tile, stack, machine, plain)))
    for n, (factors, stay) in enumerate(drawn):
        mapping = even.even_mapping(factors, stay, spatial, machine)
        exact = price(nest_of("l", SHAPE, mapping, machine), SHAPE, machine, plain)
        for key, value in exact.transfer_pj.items():
            assert found["transfer_pj"][key][n] == pytest.approx(float(value), rel=1e-9, abs=1e-9), key
        assert found["energy_pj"][n] == pytest.approx(float(exact.energy_pj), rel=1e-9)
        for name, parts in demand_bits(exact, SHAPE, machine).items():
            assert found["tile_bits"][name][n] == pytest.approx(sum(parts.values()), rel=1e-9)
        assert found["steps"][n] == pytest.approx(float(exact.cycles.temporal))


def test_factors_multiply_to_the_bound_and_units_stay_in_the_array(machine):
    stack = stack_of.stack_layers(["l"], [SHAPE], [1.0])
    knobs = stack_of.random_knobs(jax.random.key(3), stack, machine, spread=6.0)
    tile = stack_of.tiling(knobs, stack, machine)
    product = np.exp(np.sum(tile.temporal, axis=0) + np.sum(tile.units, axis=0))[:, 0]
    assert product == pytest.approx(np.array(SHAPE.bounds, dtype=float), rel=1e-12)
    spans = np.exp(np.sum(tile.units, axis=1))[:, 0]
    assert np.all(spans <= np.array([size for _, size in machine.array]) * (1 + 1e-12))
    assert np.all(tile.temporal >= -1e-12) and np.all(tile.units >= -1e-12)


@pytest.mark.parametrize("free", [False, True], ids=["unrolling given", "unrolling free"])
def test_every_term_has_the_gradient_of_central_differences(machine, free):
    """Each energy term, tile, port and the latency, along every coordinate of the knobs, in float64."""
    nest = unrolled("l", SHAPE, SPATIAL[machine.name], machine)
    stack = stack_of.stack_layers(["l"], [SHAPE], [1.0], None if free else [nest])
    knobs = stack_of.random_knobs(jax.random.key(5), stack, machine, spread=0.5)
    flat, back = jax.flatten_util.ravel_pytree(knobs)

    def terms(x):
        found = continuous.relaxed_price(stack_of.tiling(back(x), stack, machine), stack, machine)
        parts = [*found.transfer_pj.values(), *found.tile_bits.values(), *found.port_cycles.values(), found.cycles]
        return jnp.stack([part[0] for part in jnp.broadcast_arrays(*parts)])

    slopes = np.asarray(jax.jit(jax.jacrev(terms))(flat))
    step = 1e-6
    shifts = step * np.eye(len(flat))
    above, below, here = np.split(
        np.asarray(jax.jit(jax.vmap(terms))(flat + np.concatenate([shifts, -shifts, 0 * shifts[:1]]))),
        [len(flat), 2 * len(flat)],
    )
    differences = (above - below).T / (2 * step)
    scale = np.abs(here.T)
    assert np.max(np.abs(slopes - differences) / np.maximum(np.abs(differences), 1e-3 * scale + 1e-9)) < 1e-4
    assert np.any(slopes != 0, axis=0)[: knobs.split.size].sum() > knobs.split.size / 2


def test_widths_sizes_and_port_widths_reach_the_price():
    gemmini = load_hierarchy("gemmini")
    nest = unrolled("l", SHAPE, SPATIAL["gemmini"], gemmini)
    stack = stack_of.stack_layers(["l"], [SHAPE], [1.0], [nest])
    tile = stack_of.tiling(stack_of.random_knobs(jax.random.key(1), stack, gemmini), stack, gemmini)

    def energy(bits, size):
        shape = dataclasses.replace(stack.shape, w_bits=bits[0], i_bits=bits[1], psum_bits=bits[2], o_bits=bits[3])
        memories = list(gemmini.memories)
        memories[2] = dataclasses.replace(memories[2], size_bits=size)
        chip = dataclasses.replace(gemmini, memories=tuple(memories))
        return continuous.relaxed_price(tile, dataclasses.replace(stack, shape=shape), chip).energy_pj[0]

    bits, size = jnp.array([[8.0], [8.0], [24.0], [8.0]]), jnp.array(2.0**22)
    by_bits, by_size = jax.grad(energy, argnums=(0, 1))(bits, size)
    assert np.all(by_bits[:3] > 0) and by_size > 0 and by_bits[3] == 0  # each sum comes back: all travel wide
    whole = tile.temporal.at[:, [3, 6, 7]].set(0.0).at[0, [3, 6, 7], 0].set(np.log([3.0, 3.0, 3.0]))
    tile = dataclasses.replace(tile, temporal=whole)  # C, FY, FX inside: outputs leave as they end
    by_bits, by_size = jax.grad(energy, argnums=(0, 1))(bits, size)
    assert by_bits[3] > 0
    for i in range(4):
        up, down = bits.at[i].add(1e-4), bits.at[i].add(-1e-4)
        assert float((energy(up, size) - energy(down, size)) / 2e-4) == pytest.approx(float(by_bits[i, 0]), rel=1e-6)
    half = float((energy(bits, size + 64) - energy(bits, size - 64)) / 128)
    assert half == pytest.approx(float(by_size), rel=1e-6)


def test_the_smooth_maximum_lies_above_and_tightens():
    values = [jnp.array([3.0]), jnp.array([5.0]), jnp.array([4.9])]
    loose, tight = (float(continuous.smooth_max(values, s)[0]) for s in (10.0, 1000.0))
    assert 5.0 < tight < loose < 5.0 * 3 ** (1 / 10)
    assert tight == pytest.approx(5.0, rel=2e-3)


def test_an_idle_port_leaves_the_gradient_of_the_maximum_finite():
    slopes = jax.grad(lambda x: continuous.smooth_max([x[0], x[1], x[2]], 40.0))(jnp.array([0.0, 5.0, 1.0]))
    assert slopes == pytest.approx(np.array([0.0, 1.0, 0.0]), abs=1e-12)


def test_divisors_next_to_real_extents():
    assert even.divisor_chain(np.array([2.6, 7.0, 24.0]), 24) == [2, 4, 3]  # 8 / 7 < 7 / 6; then 2.6 / 2 < 4 / 2.6
    assert even.divisor_chain(np.array([2.9, 6.4, 24.0]), 24) == [3, 2, 4]
    assert even.divisor_chain(np.array([1.0, 1.0, 13.0]), 13) == [1, 1, 13]


@pytest.mark.parametrize("objective", ["energy", "edp"])
def test_a_descent_ends_legal_and_near_the_proven_optimum(objective):
    """Even cuts hold less than all cuts: on gemmini within 5 % of the energy optimum proven over all of them."""
    gemmini = load_hierarchy("gemmini")
    spatial = SPATIAL["gemmini"]
    nest = unrolled("l", SHAPE, spatial, gemmini)
    stack = stack_of.stack_layers(["l"], [SHAPE], [1.0], [nest])
    ended = tile_descent.descend_tilings(stack, gemmini, objective=objective, starts=4, steps=150)
    assert np.all(np.isfinite(ended.energy_pj)) and np.all(ended.overflow < 0.1)
    costs = []
    for start in range(4):
        factors, stay = np.asarray(ended.temporal[start, :, :, 0]), np.asarray(ended.stay[start, :, :, 0])
        found = even.rounded("l", factors, stay, nest, spatial, SHAPE, gemmini, HARDWARE, objective)
        exact = price(nest_of("l", SHAPE, found.mapping, gemmini), SHAPE, gemmini)
        require_legal("l", exact, SHAPE, gemmini)
        assert (found.energy_pj, found.cycles) == (float(exact.energy_pj), float(exact.cycles.total))
        costs.append(found.energy_pj if objective == "energy" else found.energy_pj * found.cycles)
    best = best_mapping("l", SHAPE, gemmini, objective=objective, spatial=[spatial])
    assert best.bound <= min(costs) * (1 + 1e-9)
    assert min(costs) <= (1.05 if objective == "energy" else 1.2) * best.value


def test_descending_lowers_the_objective_of_every_start():
    gemmini = load_hierarchy("gemmini")
    stack = stack_of.stack_layers(["a", "b"], [SHAPE, SHAPE], [1.0, 3.0])
    first, last = (tile_descent.descend_tilings(stack, gemmini, objective="edp", starts=3, steps=n) for n in (1, 150))

    def edp(d):
        return (d.energy_pj @ stack.repeat) * (d.cycles @ stack.repeat)

    assert np.all(edp(last) < 0.5 * edp(first))


def test_what_cannot_be_is_refused_with_a_remedy():
    gemmini = load_hierarchy("gemmini")
    nest = unrolled("l", SHAPE, SPATIAL["gemmini"], gemmini)
    stack = stack_of.stack_layers(["l"], [SHAPE], [1.0], [nest])
    with pytest.raises(ValueError, match="objective 'delay' is unknown; use one of energy, edp"):
        tile_descent.descend_tilings(stack, gemmini, objective="delay")
    real, shares = np.ones((3, 8)), np.ones((3, 3))
    real[0] = _temporal(nest)
    with pytest.raises(ValueError, match="objective 'delay' is unknown; use one of energy, edp"):
        even.rounded("l", real, shares, nest, {}, SHAPE, gemmini, HARDWARE, "delay")
    memories = [dataclasses.replace(m, size_bits=1.0) for m in gemmini.memories[:-1]]
    tiny = dataclasses.replace(gemmini, memories=(*memories, gemmini.memories[-1]))
    with pytest.raises(ValueError, match="^l: no move from the rounded tiles fits into the memories of gemmini"):
        even.rounded("l", real, shares, nest, SPATIAL["gemmini"], SHAPE, tiny, HARDWARE)


def test_latency_by_hand():
    """4 x 3 MACs on one unit, outputs in an accumulator, all else from one 16-bit port."""
    directions = ("read_to_low", "write_from_low", "read_to_high", "write_from_high")

    def memory(name, operands, width):
        port = Port("rw", "read_write", tuple((o, d) for o in operands for d in directions), width, 1.0)
        return Memory(name, operands, (), "room", (port,), 1e6, 1.0, 1.0, 1e6, 0.0, 1e6, 1e6, 1.0, 0.0, 0.0)

    chip = Hierarchy("toy", (), (), (memory("acc", ("O",), 100.0), memory("dram", ("W", "I", "O"), 16.0)), 1.0, 1.0)
    shape = LayerShape((1, 1, 4, 3, 1, 1, 1, 1), (1, 1), (1, 1), (1, 1), 8, 8, 24, 8)
    stack = stack_of.stack_layers(["l"], [shape], [1.0], [unrolled("l", shape, {}, chip)])
    temporal = np.zeros((2, 8, 1))
    temporal[0, 3], temporal[1, 2] = np.log(3.0), np.log(4.0)
    stay = jax.nn.one_hot(jnp.array([2, 2]), 3)[..., None]
    tile = stack_of.Tiling(jnp.asarray(temporal), jnp.zeros((0, 8, 1)), stay)
    found = continuous.relaxed_price(tile, stack, chip, sharpness=1e6)
    # dram: 12 weights, 12 inputs, 4 finished outputs of 8 bit. acc: 12 writes and 8 reads of 24 bit, 4 outputs.
    assert float(found.port_cycles["dram", "rw"][0]) == pytest.approx((12 * 8 + 12 * 8 + 4 * 8) / 16)
    assert float(found.port_cycles["acc", "rw"][0]) == pytest.approx((12 * 24 + 8 * 24 + 4 * 8) / 100)
    assert float(found.steps[0]) == pytest.approx(12)
    assert float(found.cycles[0]) == pytest.approx(14 + 8 / 16, rel=1e-4)  # the port, and the last output's drain
