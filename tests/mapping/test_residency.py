"""What stays on chip on any hierarchy: by hand, relaxed and exact, and as a gradient that trains a network to fit."""

import dataclasses
import math
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from cooptim.hardware.hierarchy import Hierarchy, Memory, Port
from cooptim.hardware.hierarchy_file import load_hierarchy
from cooptim.mapping import continuous, even
from cooptim.mapping.needs import exact_needs, relaxed_cycles, relaxed_needs
from cooptim.mapping.nest import IRRELEVANT, Mapping, layer_shape, nest_of
from cooptim.mapping.price import price
from cooptim.mapping.residency import Needs, map_home, stay, weight_home
from cooptim.mapping.resident_network import residency_of
from cooptim.mapping.rules import HARDWARE
from cooptim.mapping.search import best_mapping, unrolled
from cooptim.mapping.stack import Tiling, random_knobs, stack_layers, tiling
from cooptim.mapping.tiers import tier_count
from cooptim.workload import Bounds, Layer, Workload
from cooptim.workload.graph import facts

pytestmark = pytest.mark.unoptimized

PLAIN = dataclasses.replace(HARDWARE, pack="none")
OUT = ("read_to_low", "write_from_low")
BOTH = (*OUT, "read_to_high", "write_from_high")


def _memory(name, operands, size, read, write, width, directions, served=("D",)):
    serves = tuple((o, d) for o in operands for d in directions if o == "O" or d in ("read_to_low", "write_from_high"))
    port = Port("rw", "read_write", serves, width, 8)
    inf = math.inf
    return Memory(name, operands, served, "room", (port,), size, read, write, size, 0.0, 1.0, inf, 1.0, 0.0, 0.0)


def _machine(sram_bits=256.0, operands=("W", "I", "O")):
    """One MAC, a register level, an SRAM, DRAM; constant energies."""
    return Hierarchy(
        "small",
        (("D", 1),),
        (),
        (
            _memory("rf", ("W", "I", "O"), 64.0, 1.0, 1.0, 16, BOTH),
            _memory("sram", operands, sram_bits, 10.0, 20.0, 8, BOTH),
            _memory("dram", ("W", "I", "O"), math.inf, 100.0, 200.0, 8, OUT),
        ),
        1.0,
        1.0,
    )


CHAIN = Workload(
    "chain",
    (
        Layer("a", "dense", Bounds(K=4, C=2), repeat=2),
        Layer("b", "dense", Bounds(K=3, C=4), inputs=("a",)),
    ),
    ("b",),
)
CUTS = {"W": (0, 2, 2), "I": (0, 2, 2), "O": (1, 2, 2)}
MAPPED = {
    "a": Mapping((("C", 2), ("K", 4)), {}, CUTS),
    "b": Mapping((("C", 4), ("K", 3)), {}, CUTS),
}


def _shapes(workload, bits=8.0, psum=16.0):
    return {layer.name: layer_shape(layer, bits, bits, psum, bits) for layer in workload.layers}


def test_a_chain_of_two_layers_by_hand():
    """Layer a: 8 weights, 2 inputs, 4 outputs, run twice; b: 12 weights, 4 inputs, 3 outputs; all whole in the SRAM.

    Words: in 100 + 20 pJ, out 10 + 200 pJ. Tiles: a 8 (8 + 2 + 4) = 112 bit, b 8 (12 + 4 + 3) = 152; the two maps of
    a 64 bit. b is fullest with 216 of 256 bit, so 40 bit of weights stay: of a, whose 64 bit save 2 x 960 pJ (30 a bit;
    b's 96 save 1440, 15 a bit).
    """
    found = residency_of(CHAIN, _shapes(CHAIN), MAPPED, _machine())
    assert (found.map_home, found.weight_home) == ("sram", "sram")
    a, b = found.layers
    assert (a.map_tile_bits, a.map_demand_bits) == (112, 176)
    assert (b.map_tile_bits, b.map_demand_bits) == (152, 216)
    assert (a.input_share, a.map_share, a.weight_share) == (0, 1, 40 / 64)
    assert (b.input_share, b.map_share, b.weight_share) == (1, 0, 0)
    assert a.energy_before_pj - a.energy_after_pj == 2 * 4 * 210 + 1920 * 40 / 64
    assert b.energy_before_pj - b.energy_after_pj == 4 * 120
    assert found.energy_after_pj == found.bound_pj == found.energy_before_pj - 3360
    assert found.resident_bits == 40


def test_energy_before_is_that_of_every_word_by_hand():
    """Layer b. The register's port takes two words of 8 bit an access, or one partial sum.

    W: 12 words in at 100 + 20, 12 on at 10 + 1/2 + 1/2. I: 4 in at 120, 12 on at 11. O: 12 sums written, 9 read back;
    3 read (1 access and a half, rounded down), and on at 20 + 10 + 200. 12 multiply-accumulates.
    """
    b = residency_of(CHAIN, _shapes(CHAIN), MAPPED, _machine()).layers[1]
    assert b.energy_before_pj == 12 * 131 + (480 + 132) + (12 + 9 + 1 + 3 * 230) + 12


def test_partial_sums_still_travel():
    """C of layer a runs outside the SRAM's tile: each of 4 outputs leaves twice at 16 bit and comes back once. Kept,
    one of the two passes saves its final 8 bit, 4 (10 + 200), and the rest goes on being paid."""
    cuts = {"W": (0, 2, 2), "I": (0, 2, 2), "O": (0, 0, 2)}
    spilled = {"a": Mapping((("K", 4), ("C", 2)), {}, cuts), "b": MAPPED["b"]}
    a = residency_of(CHAIN, _shapes(CHAIN), spilled, _machine(2048.0)).layers[0]
    assert (a.map_share, a.weight_share) == (1, 1)
    exact = price(nest_of("a", _shapes(CHAIN)["a"], spilled["a"], _machine()), _shapes(CHAIN)["a"], _machine())
    assert float(exact.accesses["O", 1, "read_to_high"]) == 16  # 8 passes of two bytes
    assert a.energy_before_pj - a.energy_after_pj == 2 * (8 * 120 + 4 * 210)


def test_homes_are_the_outermost_memories_on_chip():
    named = {}
    for name in ("envision", "gemmini", "tpu_like", "eyeriss_like", "meta_prototype"):
        machine = load_hierarchy(name)
        homes = (map_home(machine), weight_home(machine))
        named[name] = tuple(None if home is None else machine.memories[home].name for home in homes)
    assert named == {
        "envision": ("sram", "sram"),
        "gemmini": (None, "scratchpad"),  # inputs and outputs live apart
        "tpu_like": ("sram_2MB", "rf_128B"),  # weights pass the SRAM by
        "eyeriss_like": ("sram_1M", "sram_64KB"),
        "meta_prototype": ("sram_1MB_A", "sram_1MB_W"),
    }


def test_weights_in_replicated_registers_take_their_part_of_each():
    """48 weights over 4 x 2 units of K and C: 6 words of 8 bit an instance, whatever OX repeats."""
    machine = load_hierarchy("tpu_like")
    layer = Layer("a", "conv", Bounds(K=8, C=6, OX=5))
    shape = _shapes(Workload("one", (layer,)), psum=16.0)["a"]
    mapping = best_mapping("a", shape, machine, spatial=[{"D1": (("K", 4),), "D2": (("C", 2),)}]).mapping
    nest = nest_of("a", shape, mapping, machine)
    needs = exact_needs(Workload("one", (layer,)), [shape], [nest], [price(nest, shape, machine)], machine)
    assert needs.weight_bits == 48


PRODUCT = Workload(
    "product",
    (
        Layer("q", "dense", Bounds(K=4, C=2)),
        Layer("qk", "matmul", Bounds(K=4, C=4), inputs=("q",)),
    ),
    ("qk",),
)


def _mapped_needs(workload, machine):
    shapes = _shapes(workload)
    found = {}
    for layer in workload.layers:
        b = layer.bounds
        given = (("C", b.C), ("K", b.K))
        cuts = {
            o: CUTS[o][-len(machine.levels(o)) :] if o != "W" else (0, 2, 2)[: len(machine.levels(o))] for o in "WIO"
        }
        found[layer.name] = Mapping(given, {}, cuts)
    nests = [nest_of(n, shapes[n], found[n], machine) for n in workload.names]
    prices = [price(nest, shapes[n], machine) for n, nest in zip(workload.names, nests, strict=True)]
    return exact_needs(workload, [shapes[n] for n in workload.names], nests, prices, machine)


def test_both_operands_of_an_activation_product_are_found_where_their_home_holds_them():
    """I 4 words, W 16 words from outside at 120; where the SRAM holds no W, that operand is fetched and q leaves."""
    needs = _mapped_needs(PRODUCT, _machine(1024.0))
    np.testing.assert_array_equal(needs.input_pj, [2 * 120, (4 + 16) * 120])
    np.testing.assert_array_equal(needs.output_pj, [4 * 210, 0])
    np.testing.assert_array_equal(needs.weight_pj, [8 * 120, 0])
    apart = _mapped_needs(PRODUCT, _machine(1024.0, ("I", "O")))
    np.testing.assert_array_equal(apart.input_pj, [2 * 120, 4 * 120])
    np.testing.assert_array_equal(apart.output_pj, [0, 0])


# --- relaxed and exact ---

NET = Workload(
    "net",
    (
        Layer("a", "conv", Bounds(K=8, C=4, OY=6, OX=8, FY=3, FX=3), repeat=2),
        Layer("b", "conv", Bounds(K=8, C=8, OY=6, OX=8), inputs=("a",)),
        Layer("c", "conv", Bounds(K=16, C=8, OY=3, OX=4, FY=2, FX=2), stride=(2, 2), inputs=("a", "b")),
        Layer("d", "dense", Bounds(K=8, C=16, OX=2), inputs=("c",)),
    ),
    ("c", "d"),
)
NET_UNITS = {
    "envision": {"rows": (("K", 8),)},
    "tpu_like": {"D1": (("K", 8),), "D2": (("C", 4),)},
    "meta_prototype": {"D1": (("K", 8),), "D2": (("C", 2),)},
}


def _tiled(machine, seed):
    """Random even mappings of NET whose slots hold their stationary operand innermost, relaxed and exact."""
    rng, spatial, slots = random.Random(seed), NET_UNITS[machine.name], tier_count(machine)
    shapes = _shapes(NET)
    nests, tilings, prices = [], [], []
    starts = [unrolled(n, shapes[n], spatial, machine) for n in NET.names]
    for name, start in zip(NET.names, starts, strict=True):
        shape = shapes[name]
        while True:
            factors = np.ones((slots, 8), dtype=int)
            for d in range(8):
                for prime in even.prime_factors(round(shape.bounds[d] / math.prod(row[d] for row in start.unroll))):
                    factors[rng.randrange(slots), d] *= prime
            order = [rng.randrange(3) for _ in range(slots)]
            idle = [[d for d in IRRELEVANT["WIO"[s]] if factors[k, d] > 1] for k, s in enumerate(order)]
            if all(idle[k] or factors[k].max() == 1 for k in range(slots)):
                break
        nests.append(nest_of(name, shape, even.even_mapping(factors, np.array(order), spatial, machine), machine))
        prices.append(price(nests[-1], shape, machine, PLAIN))
        tilings.append((factors, np.eye(3)[order]))
    stack = stack_layers(NET.names, list(shapes.values()), [x.repeat for x in NET.layers], starts)
    temporal = jnp.log(jnp.asarray(np.stack([f for f, _ in tilings], axis=-1), dtype=float))
    tile = Tiling(temporal, jnp.log(stack.unroll), jnp.asarray(np.stack([s for _, s in tilings], axis=-1)))
    return stack, tile, list(shapes.values()), nests, prices


@pytest.mark.parametrize("name", sorted(NET_UNITS))
def test_relaxed_needs_are_the_exact_ones_at_whole_factors(name):
    machine = load_hierarchy(name)
    for seed in range(4):
        stack, tile, shapes, nests, prices = _tiled(machine, seed)
        found = continuous.relaxed_price(tile, stack, machine, PLAIN)
        relaxed = relaxed_needs(found, tile, stack, NET, machine)
        exact = exact_needs(NET, shapes, nests, prices, machine)
        for field in dataclasses.fields(Needs):
            got, want = getattr(relaxed, field.name), getattr(exact, field.name)
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-6, err_msg=f"{field.name}, seed {seed}")
        np.testing.assert_allclose(stay(facts(NET), relaxed).energy_pj, stay(facts(NET), exact, xp=np).energy_pj)


def test_ports_are_busy_with_what_still_travels():
    """tpu_like: W from DRAM to 8 x 4 registers, I to the SRAM, final O back: exact accesses, less shares.

    At sharpness 1 the maximum over ports is their sum, so that each of them shows.
    """
    machine = load_hierarchy("tpu_like")
    for seed in range(3):
        stack, tile, shapes, _, prices = _tiled(machine, seed)
        found = continuous.relaxed_price(tile, stack, machine, PLAIN, sharpness=1.0)
        stays = stay(facts(NET), relaxed_needs(found, tile, stack, NET, machine))
        stays = stays._replace(**{f: getattr(stays, f) * 0.5 for f in ("kept_map", "kept_input", "resident")})
        after = relaxed_cycles(found, tile, stack, NET, machine, stays, sharpness=1.0)
        for j, (exact, shape) in enumerate(zip(prices, shapes, strict=True)):
            used = {port: float(n[j]) for port, n in found.port_cycles.items()}
            before = sum(used.values())
            for key, share in (
                (("I", 1, "read_to_low"), stays.kept_input[j]),
                (("W", 1, "read_to_low"), stays.resident[j]),
            ):
                used["dram", "rw_port_1"] -= float(share * exact.accesses[key])
            used["sram_2MB", "w_port_1"] -= float(stays.kept_input[j] * exact.accesses["I", 0, "write_from_high"])
            used["rf_128B", "w_port_1"] -= float(stays.resident[j] * exact.accesses["W", 0, "write_from_high"]) / 32
            words = math.prod(shape.bounds[d] for d in (0, 1, 2, 4, 5)) * 8 * (NET.names[j] not in NET.outputs)
            used["dram", "rw_port_1"] -= float(stays.kept_map[j]) * words / 64
            used["sram_2MB", "r_port_1"] -= float(stays.kept_map[j]) * words / 2048
            assert float(found.cycles[j] - after[j]) == pytest.approx(before - sum(used.values()), rel=1e-9)


# --- gradients ---


def _sized(machine, name, size):
    memories = tuple(dataclasses.replace(m, size_bits=size) if m.name == name else m for m in machine.memories)
    return dataclasses.replace(machine, memories=memories)


def test_what_stays_has_the_gradient_of_central_differences():
    """Shares, energies and cycles of every layer along every width, the memory's size and every knob, in float64.

    Maps are crowded in the SRAM of tpu_like and weights in its registers.
    """
    name, memory, size = "tpu_like", "sram_2MB", 9000.0
    machine, shapes = _sized(load_hierarchy(name), "rf_128B", 100.0), _shapes(NET)
    nests = [unrolled(n, shapes[n], NET_UNITS[name], machine) for n in NET.names]
    stack = stack_layers(NET.names, list(shapes.values()), [x.repeat for x in NET.layers], nests)
    knobs = random_knobs(jax.random.key(2), stack, machine, spread=0.5)
    bits = {
        "w": np.array([5.0, 6.1, 4.3, 7.7]),
        "i": np.array([8.0, 5.2, 6.3, 4.1]),
        "o": np.array([6.4, 6.6, 4.7, 8.0]),
    }
    flat, back = ravel_pytree((knobs, bits, size / 1000.0))

    def terms(x):
        knobs, b, room = back(x)
        chip = _sized(machine, memory, room * 1000.0)
        layers = dataclasses.replace(
            stack, shape=dataclasses.replace(stack.shape, w_bits=b["w"], i_bits=b["i"], o_bits=b["o"])
        )
        tile = tiling(knobs, layers, chip)
        found = continuous.relaxed_price(tile, layers, chip)
        stays = stay(facts(NET), relaxed_needs(found, tile, layers, NET, chip))
        cycles = relaxed_cycles(found, tile, layers, NET, chip, stays)
        saved = found.energy_pj * stack.repeat - stays.energy_pj
        return jnp.stack([stays.kept_map, stays.kept_input, stays.resident, stays.map_demand_bits, saved, cycles])

    step = 1e-6

    @jax.jit
    def along(x, direction):
        here, slope = jax.jvp(terms, (x,), (direction,))
        ahead, behind = jax.lax.map(terms, jnp.stack([x + step * direction, x - step * direction]))
        return here, slope, (ahead - behind) / (2 * step)

    here, slopes, differences = (
        np.stack(x, axis=-1) for x in zip(*(along(flat, e) for e in np.eye(len(flat))), strict=True)
    )
    here = here[..., 0]
    assert all(np.any((shares > 0.05) & (shares < 0.95)) for shares in (here[0, :3], here[2])), here[:3]
    scale = np.abs(here)[..., None]
    error = np.abs(slopes - differences) / np.maximum(np.abs(differences), 1e-3 * scale + 1e-6)
    assert np.max(error) < 1e-4, np.argwhere(error > 1e-4)
    reached = np.any(slopes != 0, axis=(0, 1))
    widths = reached[-13:-1].reshape(3, 4)  # i, o, w
    assert reached[-1] and widths[0].all() and widths[2].any()


def test_the_closed_form_has_the_gradient_of_central_differences_where_one_memory_is_home_to_all():
    """Maps kept whole, weights in what the fullest layer leaves: along every need and the room."""
    rows = [[900.0, 800.0, 700.0, 600.0], [0.0, 40.0, 30.0, 20.0], [50.0, 20.0, 10.0, 0.0], [90.0, 20.0, 80.0, 60.0],
            [30.0, 12.0, 5.0, 0.0], [16.0, 9.0, 24.0, 11.0], [20.0, 33.0, 17.0, 9.0]]  # fmt: skip
    flat = np.array([x for row in rows for x in row] + [110.0])

    def terms(x):
        energy, inputs, outputs, weights, maps, sizes, tiles = x[:-1].reshape(7, 4)
        needs = Needs(energy, inputs, outputs, weights, maps, sizes, tiles, tiles, x[-1], x[-1], shared=True)
        stays = stay(facts(NET), needs)
        return jnp.concatenate([stays.kept_map, stays.resident, stays.energy_pj])

    here = np.asarray(terms(flat))
    assert np.all(here[:3] == 1) and list(here[4:8]) == [1, 0, pytest.approx(8 / 24), 1]  # a 16, d 11 of 110 - 75 bit
    slopes, value = np.asarray(jax.jacrev(terms)(flat)), jax.jit(jax.vmap(terms))
    shifts = 1e-5 * np.eye(len(flat))
    differences = np.asarray(value(flat + shifts) - value(flat - shifts)).T / 2e-5
    np.testing.assert_allclose(slopes, differences, rtol=1e-6, atol=1e-8)
    fullest = 24 + 1  # the tile of layer b
    assert slopes[10, fullest] == pytest.approx(80 / 24) and slopes[10, -1] == pytest.approx(-80 / 24)  # pJ a bit


def _trained(residency, steps=300):
    """Per-layer input widths of a chain of three by gradient descent: energy against a task that wants 8 bit."""
    layers = tuple(
        Layer(n, "conv", Bounds(K=8, C=8, OY=8, OX=8), inputs=(before,))
        for n, before in (("a", "input"), ("b", "a"), ("c", "b"))
    )
    net, machine = Workload("three", layers, ("c",)), _sized(load_hierarchy("tpu_like"), "sram_2MB", 6600.0)
    shapes = _shapes(net)
    nests = [unrolled(n, shapes[n], {"D1": (("K", 8),), "D2": (("C", 8),)}, machine) for n in net.names]
    stack = stack_layers(net.names, list(shapes.values()), [1.0] * 3, nests)
    # OX innermost, OY outside the SRAM's tiles.
    factors = np.ones((tier_count(machine), 8, 3))
    factors[0, 5], factors[-1, 4] = 8, 8
    order = np.tile(np.eye(3)[0][None, :, None], (tier_count(machine), 1, 3))
    tile = Tiling(jnp.log(factors), jnp.log(stack.unroll), jnp.asarray(order))

    def after(bits, stored=None):
        out = jnp.append(bits[1:], 8.0)
        layers = dataclasses.replace(stack, shape=dataclasses.replace(stack.shape, i_bits=bits, o_bits=out))
        found = continuous.relaxed_price(tile, layers, machine)
        needs = relaxed_needs(found, tile, layers, net, machine)
        if stored is not None:  # prices as they are; widths move only what is stored
            fixed = jax.tree.map(jax.lax.stop_gradient, needs)
            needs = dataclasses.replace(fixed, map_bits=needs.map_bits, map_tile_bits=needs.map_tile_bits)
        stays = stay(facts(net), needs)
        return (jnp.sum(stays.energy_pj) if residency else jnp.sum(needs.energy_pj)), stays

    def loss(bits):
        return after(bits)[0] / 3e5 + 0.007 * jnp.sum((8.0 - bits) ** 2)

    def step(bits, rate):
        return jnp.clip(bits - rate * jax.grad(loss)(bits), 2.0, 8.0), None

    start = jnp.full(3, 8.0)
    bits, _ = jax.jit(lambda b: jax.lax.scan(step, b, jnp.geomspace(10.0, 0.01, 200)))(start)
    alone = jax.jit(jax.grad(lambda b: after(b, stored=True)[0]))(start)
    return np.asarray(alone), np.asarray(bits), jax.jit(after)(start), jax.jit(after)(bits)


def test_a_network_is_trained_to_fit():
    """While b runs, its input and output stay beside its tiles as far as they fit. At 8 bit they do not (0.68 of each).

    Widths that move nothing but what is stored already pull to fewer bits: their tiles leave less room. Trained on all
    of the energy, the maps end where they just fit, though the task asks for 8 bit. Without residency every bit costs
    the same all the way down, so that the same task ends half a bit narrower.
    """
    alone, bits, before, after = _trained(residency=True)
    assert alone[0] == 0 and np.all(alone[1:] > 1000)  # pJ a bit; the network's input never stays
    assert np.all(before[1].kept_map[:2] < 0.7) and np.all(after[1].kept_map[:2] > 0.999)
    assert float(np.max(after[1].map_demand_bits)) == pytest.approx(6600, rel=1e-3)
    assert float(after[0]) < 0.6 * float(before[0])
    _, narrower, _, _ = _trained(residency=False)
    assert np.all(narrower[1:] < bits[1:] - 0.5) and np.all(bits < 7.5)
