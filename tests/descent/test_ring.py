"""Choices whose changes between consecutive layers cost: exact on a ring, and better than choosing apart."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.descent.assign import assign_hardware, choose
from cooptim.descent.price import Pricer
from cooptim.descent.ring import InfeasibleDeadline, cheapest_ring, choose_ring, ring_sum
from cooptim.design.legal import grid_clock_ghz, violations
from cooptim.design.space import DesignSpace
from cooptim.hardware import Switching
from cooptim.hardware.dvafs import supply_grid
from cooptim.network.stats import Stats
from tests.cost.cases import DIGITS, MACHINES, design_of, few_rows

NAMES = ("a", "b", "c", "d")


def _sum(node, change, pick):
    """Of one option a layer and the change into each, in plain Python."""
    return sum(node[o][layer] + change[pick[layer - 1]][o] for layer, o in enumerate(pick))


def _brute(energy, latency, change_pj, change_ns, deadline):
    options, layers = energy.shape
    picks = itertools.product(range(options), repeat=layers)
    fine = [p for p in picks if _sum(latency, change_ns, p) <= deadline]
    return min(_sum(energy, change_pj, p) for p in fine)


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_the_cheapest_ring_is_that_of_brute_force(layers):
    rng = np.random.default_rng(layers)
    for _ in range(60):
        node, change = rng.uniform(0, 2, (5, layers)), rng.uniform(0, 1.5, (5, 5))
        node[rng.random(node.shape) < 0.2] = np.inf
        node[0] = np.where(np.isinf(node).all(axis=0), 1.0, node[0])
        pick = cheapest_ring(node, change)
        least = min(_sum(node, change, p) for p in itertools.product(range(5), repeat=layers))
        assert _sum(node, change, pick) == pytest.approx(least)
        assert ring_sum(node, change, pick) == pytest.approx(least)


def _supplies(rng, layers, count=8, rail=1.0, settle=0.3):
    """Faster costs more: energy ~ v^2, latency ~ 1/v; a change charges the rail and takes time."""
    v = np.linspace(0.6, 1.0, count)
    size = rng.uniform(0.2, 3.0, layers)
    up = rail * np.maximum(v[None, :] ** 2 - v[:, None] ** 2, 0.0)
    return size * v[:, None] ** 2, size / v[:, None], up, settle * np.abs(v[None, :] - v[:, None])


def test_choice_on_a_ring_under_a_deadline_is_near_brute_force_and_never_late():
    rng, ratios = np.random.default_rng(0), []
    for i in range(40):
        case = _supplies(rng, (1, 2, 3, 4)[i % 4], rail=rng.choice([0.05, 0.5, 5.0]))
        energy, latency, change_pj, change_ns = case
        deadline = rng.uniform(latency.min(0).sum(), latency.max(0).sum())
        pick = choose_ring(*case, deadline, NAMES)
        assert _sum(latency, change_ns, pick) <= deadline * (1 + 1e-12)
        ratios.append(_sum(energy, change_pj, pick) / _brute(*case, deadline))
    assert max(ratios) < 1.02 and np.median(ratios) < 1.002


def test_where_changes_are_free_the_ring_costs_what_the_knapsack_does():
    energy, latency, *_ = _supplies(np.random.default_rng(3), 4)
    nothing, columns = np.zeros((8, 8)), np.arange(4)
    apart = choose(energy, latency, 9.0, NAMES)
    ring = choose_ring(energy, latency, nothing, nothing, 9.0, NAMES)
    assert energy[ring, columns].sum() <= energy[apart, columns].sum() * (1 + 1e-12)


def test_choosing_apart_is_worse_where_changes_cost():
    # Each layer alone takes its own option at 1.0; one option for all costs 1.1 a layer and no change of 5.
    energy = np.array([[1.0, 9.0, 1.0, 9.0], [9.0, 1.0, 9.0, 1.0], [1.1, 1.1, 1.1, 1.1]])
    change = 5.0 * (1 - np.eye(3))
    latency = np.ones((3, 4))
    apart = choose(energy, latency, 10.0, NAMES)
    together = choose_ring(energy, latency, change, 0 * change, 10.0, NAMES)
    assert (_sum(energy, change, apart), _sum(energy, change, together)) == (24.0, pytest.approx(4.4))


def test_a_deadline_that_the_changes_alone_miss_is_named_with_their_time():
    energy, change = np.where(np.eye(2) > 0, 1.0, np.inf), 3.0 * (1 - np.eye(2))
    with pytest.raises(InfeasibleDeadline, match=r"deadline 7 ns: the fastest .* takes 8 ns with its changes.*allow"):
        choose_ring(energy, energy, change, change, 7.0, NAMES)  # two layers of 1 ns and two changes of 3


def _start(machine, table, bits):
    n = len(DIGITS.layers)
    one, widths = np.ones(n), np.asarray(bits, float)
    mode, rows = np.tile(np.eye(3)[0], (n, 1)), np.tile(np.eye(table.rows)[0], (n, 1))
    size = np.asarray(machine.buffer.size_bits)
    levels = 2.0 ** (widths - 1) - 1
    plain = design_of(machine, *map(jnp.asarray, (mode, rows, widths, widths, one, 0.2 * one)), jnp.asarray(size))
    return dataclasses.replace(plain, weight_range=jnp.asarray(levels), input_range=jnp.asarray(levels))


def _every_design(space, start):
    """All designs that differ in mode and supply, tilings as in `start`, clocks as fast as the grid allows."""
    volts, widest = supply_grid(space.machine.supply), np.maximum(start.weight_bits, start.input_bits)
    clock = {v: np.asarray(grid_clock_ghz(space, start, np.full(3, v))) for v in volts}
    options = [[(k, v) for k in range(3) if space.slot_bits[k] >= bits for v in volts] for bits in widest]
    for picks in itertools.product(*options):
        yield dataclasses.replace(
            start,
            mode=np.eye(3)[[k for k, _ in picks]],
            supply_v=np.asarray([v for _, v in picks]),
            freq_ghz=np.asarray([clock[v][layer] for layer, (_, v) in enumerate(picks)]),
        )


def test_a_chip_whose_changes_cost_gets_the_best_of_all_modes_and_supplies_and_not_those_chosen_apart():
    envision = MACHINES["envision"]
    coarse = dataclasses.replace(envision, supply=dataclasses.replace(envision.supply, step_v=jnp.asarray(0.11)))
    # The layers take 0.1 to 3 us and 310 nJ; 30 nF on the rail, 20 ns a change of mode, 5 ns a step of the supply.
    costly = dataclasses.replace(coarse, switching=Switching(*map(jnp.asarray, (30e3, 20.0, 5.0))))
    table, stats, deadline = few_rows(DIGITS, envision, 1), Stats(jnp.full(3, 0.5), jnp.full(3, 0.5)), 3500.0
    free, ring = (DesignSpace(DIGITS, machine, table, (True,) * 3) for machine in (coarse, costly))
    pricer, start = Pricer(ring), _start(envision, table, [4.0, 8.0, 4.0])
    apart = assign_hardware(free, pricer, start, stats, deadline)  # a chip that charges no change
    found = assign_hardware(ring, pricer, start, stats, deadline)
    assert violations(ring, found) == []
    start = jax.tree.map(np.asarray, start)
    designs = [apart, found, *_every_design(ring, start)]
    prices = pricer.many(designs, stats, deadline)
    on_time = prices.latency_ns <= deadline * (1 + 1e-6)
    assert on_time[1] and len(designs) > 1000
    assert prices.energy_pj[1] == pytest.approx(prices.energy_pj[2:][on_time[2:]].min(), rel=1e-9)
    assert on_time[0] and prices.energy_pj[0] > 1.01 * prices.energy_pj[1]
