"""The frontier relaxation: exact when cold (Danskin's gradient, too), right gradients when warm, one program."""

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.hardware.hierarchy_file import load_hierarchy
from cooptim.mapping import soft_frontier as module
from cooptim.mapping.even_best import best_rows
from cooptim.mapping.even_box import box_around
from cooptim.mapping.nest import LayerShape
from cooptim.mapping.row_price import overflow, rates, row_prices, stack_frontiers
from cooptim.mapping.search import unrolled
from cooptim.mapping.soft_frontier import edp_cycle_price, soft_price

SHAPE = LayerShape((1, 1, 16, 12, 4, 4, 3, 1), (1, 1), (1, 1), (6, 4), 8, 8, 24, 8)
SPATIAL = {"rows": (("C", 4),), "cols": (("K", 8),)}
OTHER = LayerShape((1, 1, 8, 8, 6, 2, 1, 3), (2, 1), (1, 1), (11, 4), 8, 8, 24, 8)
COLD = 1e-5


def _compiled(function):
    """jax.jit, unoptimised: compiling is what these tests spend their time on."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def _priced(stack, chip, temperature, cycle_price, sharpness=32):
    """(energy, cycles, overflow) of `soft_price`, each [layer]."""

    def parts(stack):
        found = soft_price(stack, chip, temperature, cycle_price, sharpness=sharpness)
        return found.energy_pj, found.cycles, found.overflow

    return tuple(np.asarray(part) for part in _compiled(parts)(jax.tree.map(jnp.asarray, stack)))


def _gemmini():
    """Memories in which tiles compete: a small scratchpad and accumulator, port widths that differ."""
    chip = load_hierarchy("gemmini")
    register, accumulator, scratchpad, dram = chip.memories
    sizes = (
        register,
        dataclasses.replace(accumulator, size_bits=400.0),
        dataclasses.replace(scratchpad, size_bits=3e3),
    )
    return dataclasses.replace(chip, memories=(*sizes, dram))


def _stack(shapes, chip, **more):
    nests = [unrolled("l", shape, SPATIAL, chip) for shape in shapes]
    return stack_frontiers([f"l{i}" for i in range(len(shapes))], shapes, chip, nests, **more)


def _changed(chip, knobs):
    """The machine at log changes of each memory's size, energies and of each port's width (unlimited sizes stay)."""
    memories, place = [], 0
    for memory in chip.memories:
        size, read, write = knobs[place : place + 3]
        place += 3
        ports = []
        for port in memory.ports:
            ports.append(dataclasses.replace(port, bw_max_bits=port.bw_max_bits * jnp.exp(knobs[place])))
            place += 1
        bits = memory.size_bits * jnp.exp(size) if math.isfinite(memory.size_bits) else memory.size_bits
        memories.append(
            dataclasses.replace(
                memory,
                size_bits=bits,
                read_pj=memory.read_pj * jnp.exp(read),
                write_pj=memory.write_pj * jnp.exp(write),
                ports=tuple(ports),
            )
        )
    return dataclasses.replace(chip, memories=tuple(memories)), place


def _knobs(chip):
    """(count, names) of the log changes of `_changed`, then of bits."""
    names = []
    for memory in chip.memories:
        names += [f"{memory.name} {what}" for what in ("size", "read", "write")]
        names += [f"{memory.name} port {port.name}" for port in memory.ports]
    return [*names, "W bits", "I bits", "O bits", "P bits"]


def _terms(stack, chip, temperature, cycle_price=30.0):
    """knobs -> every term of the relaxed price, [term]; names of the terms."""

    def terms(knobs):
        machine, place = _changed(chip, knobs)
        bits = stack.bits * jnp.exp(knobs[place:])[:, None]
        found = soft_price(dataclasses.replace(stack, bits=bits), machine, temperature, cycle_price)
        parts = [found.energy_pj, found.cycles, found.overflow, *found.tile_bits.values(), *found.port_cycles.values()]
        return jnp.stack([part[0] for part in parts])

    return terms


def _best(stack, chip, cycle_price):
    """(energy, cycles, row) of the cheapest row that fits, of a stack of one layer."""
    rows = row_prices(stack, chip, rates(stack, chip, np), xp=np)
    room = [m.size_bits / (2.0 if m.double_buffered == "always" else 1.0) for m in chip.memories]
    fits = np.all(rows.bits <= np.array(room)[:, None], axis=1) & stack.real
    cost = np.where(fits, rows.energy_pj + cycle_price * rows.cycles, np.inf)
    at = np.unravel_index(np.argmin(cost), cost.shape)
    return rows.energy_pj[at], rows.cycles[at], at, int(fits.sum())


def test_layers_cost_the_weighted_means_of_their_rows(monkeypatch):
    """By a softmax in numpy; blocks of one layer in several groups, the last of which is padded."""
    monkeypatch.setattr(module, "GROUP", 3)
    chip = _gemmini()
    stack = _stack([SHAPE, OTHER, SHAPE, OTHER, SHAPE], chip)
    assert len(stack.real) == 3  # layers of one shape share their rows
    assert stack.layer_of.tolist() == [0, 0, 1, 2, 2, 3, 4, 4]
    stack = dataclasses.replace(stack, bits=stack.bits * np.array([1.0, 0.5, 0.75, 0.9, 1.2]))
    price = rates(stack, chip, np)
    rows, words = row_prices(stack, chip, price, 32, xp=np), stack.words[stack.block_of]
    over, cycle_price = overflow(rows.bits, chip, np), np.array([30.0, 0.0, 3.0, 10.0, 300.0])
    logits = -(np.log(rows.energy_pj + cycle_price[stack.layer_of, None] * rows.cycles) + over / 0.2) / 0.2

    def parts(stack):
        found = soft_price(stack, chip, 0.2, cycle_price)
        ends = [jnp.stack(list(x.values()), axis=1) for x in (found.tile_bits, found.port_cycles)]
        return found.energy_pj, found.cycles, found.overflow, *ends, found.weights

    found = [np.asarray(x) for x in _compiled(parts)(jax.tree.map(jnp.asarray, stack))]
    for i in range(5):
        own = stack.layer_of == i
        raised = np.where(stack.real[stack.block_of[own]], np.exp(logits[own] - logits[own].max()), 0.0)
        share = raised / raised.sum()
        busy = np.einsum("pc,bcr->bpr", price.busy[i], words[own])
        asked = [np.einsum("b...r,br->...", x[own], share) for x in (rows.energy_pj, rows.cycles, over, rows.bits)]
        asked += [np.einsum("bpr,br->p", busy, share)]
        for part, expected in zip(found[:-1], asked, strict=True):
            assert part[i] == pytest.approx(expected, rel=1e-10)
        assert found[-1][own] == pytest.approx(share, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("cycle_price", [0.0, 30.0])
def test_cold_it_is_the_exact_least_under_the_capacities(cycle_price):
    chip = _gemmini()
    stack = _stack([SHAPE], chip)
    energy, cycles, at, fitting = _best(stack, chip, cycle_price)
    assert 0 < fitting < stack.real.sum()  # capacities bind
    (relaxed_pj,), (relaxed_cycles,), (overflow,) = _priced(stack, chip, COLD, cycle_price, math.inf)
    if cycle_price == 0.0:  # rows of one energy may tie
        assert relaxed_pj == pytest.approx(energy, rel=1e-9)
    cost = relaxed_pj + cycle_price * relaxed_cycles
    assert cost == pytest.approx(energy + cycle_price * (cycles if cycle_price else 0.0), rel=1e-9)
    assert overflow < 1e-9


def test_cold_its_gradient_is_that_of_the_winner():
    """Danskin: against the derivative of the winning row's own energy + price x cycles, row held."""
    chip = _gemmini()
    stack = _stack([SHAPE], chip)
    at = _best(stack, chip, 30.0)[2]
    names = _knobs(chip)

    def relaxed(knobs):
        machine, place = _changed(chip, knobs)
        bits = stack.bits * jnp.exp(knobs[place:])[:, None]
        found = soft_price(dataclasses.replace(stack, bits=bits), machine, COLD, 30.0, sharpness=math.inf)
        return found.energy_pj[0] + 30.0 * found.cycles[0]

    def winner(knobs):
        machine, place = _changed(chip, np.asarray(knobs))
        bits = stack.bits * np.exp(knobs[place:])[:, None]
        priced = dataclasses.replace(stack, bits=bits)
        rows = row_prices(priced, machine, rates(priced, machine, np), xp=np)
        return float(rows.energy_pj[at] + 30.0 * rows.cycles[at])

    slopes = np.asarray(_compiled(jax.grad(relaxed))(jnp.zeros(len(names))))
    for i, name in enumerate(names):
        step = 1e-6 * np.eye(len(names))[i]
        assert slopes[i] == pytest.approx((winner(step) - winner(-step)) / 2e-6, rel=1e-5, abs=1e-3), name


@pytest.fixture(scope="module")
def warm():
    """(names of knobs, terms, slopes, central differences), [term, knob]."""
    chip = _gemmini()
    stack, names = _stack([SHAPE], chip), _knobs(chip)
    terms = _terms(stack, chip, 0.2)
    start = jnp.asarray(np.random.default_rng(3).uniform(-0.2, 0.2, len(names)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "GROUP", 1)  # two groups
        value, shifts = _compiled(jax.vmap(terms)), 1e-6 * np.eye(len(names))
        values = np.asarray(value(jnp.concatenate([start + shifts, start - shifts, start[None]])))
        slopes = np.asarray(_compiled(jax.jacrev(terms))(start))
    return names, values[-1], slopes, (values[: len(names)] - values[len(names) : -1]).T / 2e-6


def test_every_term_has_the_gradient_of_central_differences(warm):
    """Energy, latency, overflow, tiles and ports along every size, energy, port width and bit width, in float64."""
    _, terms, slopes, differences = warm
    scale = np.abs(terms)[:, None]
    assert np.max(np.abs(slopes - differences) / np.maximum(np.abs(differences), 1e-3 * scale + 1e-9)) < 1e-5


def test_widths_sizes_energies_and_ports_all_get_a_gradient(warm):
    names, _, slopes, _ = warm
    energy, cycles, overflow = (dict(zip(names, row, strict=True)) for row in slopes[:3])
    assert {name for name in names if energy[name] == 0 or cycles[name] == 0} == {"dram size"}  # it has no limit
    assert overflow["scratchpad size"] != 0 and overflow["W bits"] != 0
    assert energy["dram read"] > 0 and cycles["dram port rw"] < 0


def test_warm_costs_fall_to_the_least_and_room_is_worth_something():
    chip = _gemmini()
    stack = _stack([SHAPE], chip)
    cold = _compiled(lambda t: soft_price(stack, chip, t, strength=100.0).energy_pj[0])
    energies = [float(cold(t)) for t in (0.3, 0.1, 0.03, COLD)]
    assert energies == sorted(energies, reverse=True)

    def energy(bits):
        memories = list(chip.memories)
        memories[2] = dataclasses.replace(memories[2], size_bits=bits, size_exponent=0.0, size_table=())
        machine = dataclasses.replace(chip, memories=tuple(memories))
        return jnp.log(soft_price(stack, machine, 0.05, strength=0.05).energy_pj[0])

    sizes = np.linspace(500.0, 3000.0, 100)  # at one price of an access
    values, slopes = (np.asarray(x) for x in _compiled(jax.vmap(jax.value_and_grad(energy)))(sizes))
    assert values[-1] < values[0] - 0.3 and np.mean(slopes * sizes < -0.05) > 0.2
    assert np.sum(0.5 * (slopes[1:] + slopes[:-1]) * np.diff(sizes)) == pytest.approx(values[-1] - values[0], rel=0.05)


def test_one_program_serves_ten_layers_and_every_machine():
    chip = _gemmini()
    stack = jax.tree.map(jnp.asarray, _stack([SHAPE, OTHER] * 5, chip))

    def cost(bits, size):
        memories = list(chip.memories)
        memories[2] = dataclasses.replace(memories[2], size_bits=size)
        machine = dataclasses.replace(chip, memories=tuple(memories))
        found = soft_price(dataclasses.replace(stack, bits=bits), machine, 0.1)
        return jnp.sum(found.energy_pj), (found.energy_pj, found.cycles)

    once = chex.assert_max_traces(cost, n=1)
    both = _compiled(jax.value_and_grad(once, argnums=(0, 1), has_aux=True))
    both(stack.bits, jnp.asarray(2e3))  # another machine, the same program
    (_, (energy, cycles)), (by_bits, _) = both(0.5 * stack.bits, jnp.asarray(3e3))
    assert np.all(np.asarray(by_bits)[[0, 1, 3]] != 0)
    for i, shape in enumerate((SHAPE, OTHER)):
        alone = _stack([shape], chip)
        (alone_pj,), (alone_cycles,), _ = _priced(dataclasses.replace(alone, bits=0.5 * alone.bits), chip, 0.1, 0.0)
        assert np.asarray(energy[i::2]) == pytest.approx(alone_pj, rel=1e-12)
        assert np.asarray(cycles[i::2]) == pytest.approx(alone_cycles, rel=1e-12)


def test_the_cycle_price_of_a_network_settles_on_its_least_product():
    """Against every choice of one fitting row a layer."""
    chip = _gemmini()
    stack = _stack([SHAPE, OTHER], chip, repeat=[1.0, 2.0])
    slope = float(_compiled(lambda: edp_cycle_price(stack, chip, COLD))())
    energy, cycles = (float(np.sum(stack.repeat * x)) for x in _priced(stack, chip, COLD, slope)[:2])
    assert slope == pytest.approx(energy / cycles, rel=1e-9)
    choices = []
    for i, shape in enumerate((SHAPE, OTHER)):
        alone = _stack([shape], chip)
        rows = row_prices(alone, chip, rates(alone, chip, np), 32, xp=np)
        room = [m.size_bits / (2.0 if m.double_buffered == "always" else 1.0) for m in chip.memories]
        fits = np.all(rows.bits <= np.array(room)[:, None], axis=1) & alone.real
        choices.append((rows.energy_pj[fits] * stack.repeat[i], rows.cycles[fits] * stack.repeat[i]))
    products = np.add.outer(choices[0][0], choices[1][0]) * np.add.outer(choices[0][1], choices[1][1])
    assert energy * cycles == pytest.approx(products.min(), rel=1e-6)


def test_best_rows_are_the_winners_of_the_cold_relaxation():
    chip = _gemmini()
    box = box_around(chip, (4, 8), (4, 8), (4, 8), (16, 24))
    nests = [unrolled("l", shape, SPATIAL, chip) for shape in (SHAPE, OTHER)]
    found = best_rows(["a", "b"], [SHAPE, OTHER], chip, nests, [SPATIAL] * 2, cycle_price=2.0, box=box)
    cold_pj, cold_cycles, _ = _priced(_stack([SHAPE, OTHER], chip, box=box), chip, COLD, 2.0, math.inf)
    for i, row in enumerate(found):
        relaxed = row.relaxed_pj + 2.0 * row.relaxed_cycles
        assert relaxed == pytest.approx(cold_pj[i] + 2.0 * cold_cycles[i], rel=1e-9)
        assert row.energy_pj >= row.relaxed_pj * (1 - 1e-3)
