"""The bound: below every legal design, near the best, and its three factors."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.compile import compiled_once
from cooptim.cost.bound import bound_factors, energy_bound_pj
from cooptim.cost.evaluate import evaluate
from cooptim.hardware.dvafs import clock_on_grid, critical_path, max_clock_ghz, supply_grid
from cooptim.mapping.frontier import tilings
from cooptim.network.stats import Stats
from tests.cost.cases import DIGITS, MACHINES, SYSTOLIC, WORKLOADS, as_design, design_of, random_choice

ENVISION = MACHINES["envision"]


def _gated(machine):
    return dataclasses.replace(machine, supply=dataclasses.replace(machine.supply, retention_v=jnp.array(0.0)))


CASES = [(workload, machine) for workload in WORKLOADS for machine in (*MACHINES.values(), _gated(ENVISION))]


@pytest.mark.parametrize(("workload", "machine"), [*CASES, (DIGITS, SYSTOLIC)])
def test_no_random_legal_design_costs_less(workload, machine):
    table = tilings(workload, machine)
    rng = np.random.default_rng(7)
    priced = compiled_once(lambda d, s, period: evaluate(workload, machine, d, s, period_ns=period))
    closest = 0.0
    for i in range(40):
        choice = random_choice(workload, machine, table, rng)
        if i % 2:  # the cheap corner: all zero, narrow, four lanes, untiled
            n = len(workload.layers)
            choice |= {"mode": [2] * n, "weight_bits": [2.0] * n, "input_bits": [2.0] * n, "row": [0] * n}
            choice |= {"weight_density": [0.0] * n, "input_density": [0.0] * n}
        design, stats = as_design(machine, table, choice)
        busy = float(priced(design, stats, 1.0).total_latency_ns)
        period = busy * (1.0, 1.0, 2.5)[i % 3]
        total = float(priced(design, stats, period).total_energy_pj)
        bound = energy_bound_pj(workload, machine, period).bound_pj
        assert bound <= total * (1 + 1e-9)
        closest = max(closest, bound / total)
    assert closest > 0.5


@pytest.mark.parametrize("machine", [ENVISION, SYSTOLIC])
def test_no_design_with_as_many_non_zero_words_costs_less(machine):
    table, n = tilings(DIGITS, machine), len(DIGITS.layers)
    rng = np.random.default_rng(3)
    priced = compiled_once(lambda d, s, period: evaluate(DIGITS, machine, d, s, period_ns=period))
    closest = 0.0
    for i in range(12):
        choice = random_choice(DIGITS, machine, table, rng)
        share = (0.2, 0.5, 1.0)[i % 3]
        if i % 2:
            choice |= {"mode": [len(machine.modes) - 1] * n, "row": [0] * n}
            choice |= {"weight_bits": [2.0] * n, "input_bits": [2.0] * n}
            choice |= {"weight_density": [share] * n, "input_density": [share] * n}
        least = min(*choice["weight_density"], *choice["input_density"])
        design, stats = as_design(machine, table, choice)
        period = float(priced(design, stats, 1.0).total_latency_ns)
        total = float(priced(design, stats, period).total_energy_pj)
        bound = energy_bound_pj(DIGITS, machine, period, density=least, tilings=table).bound_pj
        emptiest = energy_bound_pj(DIGITS, machine, period, tilings=table).bound_pj
        assert emptiest * (1 + 0.05 * least) <= bound <= total * (1 + 1e-9)
        closest = max(closest, bound / total)
    assert closest > 0.5
    with pytest.raises(ValueError, match="bound of .*: density 1.5 is no share; legal are 0 to 1"):
        energy_bound_pj(DIGITS, machine, 1e9, density=1.5, tilings=table)


def _best_at_one_supply(period_ns):
    """Least energy of designs with one mode and supply for all layers, everything zero and narrow, by trying all."""
    table, machine = tilings(DIGITS, ENVISION), ENVISION
    n, best = len(DIGITS.layers), np.inf
    priced = compiled_once(
        lambda d: evaluate(DIGITS, machine, d, Stats(jnp.zeros(n), jnp.zeros(n)), period_ns=period_ns)
    )
    bits = jnp.full(n, 2.0)
    rows = jnp.eye(table.rows)[jnp.zeros(n, int)]
    for mode in range(3):
        for volts in supply_grid(machine.supply):
            v = jnp.full(n, volts)
            clock = clock_on_grid(
                machine.supply, max_clock_ghz(machine.supply, v, critical_path(machine.supply, 16, bits))
            )
            shares = jnp.tile(jnp.eye(3)[mode], (n, 1))
            report = priced(design_of(machine, shares, rows, bits, bits, v, clock, machine.buffer.size_bits))
            if report.total_latency_ns <= period_ns:
                best = min(best, float(report.total_energy_pj))
    return best


@pytest.mark.parametrize("period_ns", [3_000.0, 6_100.0, 30_000.0, 100_000.0])
def test_the_bound_is_within_a_few_percent_of_the_emptiest_network(period_ns):
    bound = energy_bound_pj(DIGITS, ENVISION, period_ns).bound_pj
    best = _best_at_one_supply(period_ns)
    assert 0.9 * best <= bound <= best


def test_more_time_never_raises_the_bound_by_more_than_the_leakage_of_waiting():
    standby_mw = 3.0 * (0.59 / 1.03) ** 3  # retention at the floor: 1 % of 300 mW, cube of the supply
    periods = [2_000.0, 6_100.0, 20_000.0, 200_000.0]
    active = [energy_bound_pj(DIGITS, ENVISION, p).bound_pj - standby_mw * p for p in periods]
    assert active == sorted(active, reverse=True)


def test_the_factors_multiply_to_the_ratio_of_reference_and_bound():
    table = tilings(DIGITS, ENVISION)
    n = len(DIGITS.layers)
    wide, one = jnp.full(n, 16.0), jnp.ones(n)
    design = design_of(
        ENVISION, jnp.tile(jnp.eye(3)[0], (n, 1)), jnp.eye(table.rows)[jnp.zeros(n, int)], wide, wide, 1.03 * one,
        0.2 * one, ENVISION.buffer.size_bits,
    )  # fmt: skip
    reference = evaluate(DIGITS, ENVISION, design)
    bound = energy_bound_pj(DIGITS, ENVISION, float(reference.total_latency_ns))
    factors = bound_factors(bound, reference)
    assert factors.total == pytest.approx(float(reference.total_energy_pj) / bound.bound_pj)
    assert factors.mode_gain > 5 and factors.gating_ceiling > 1.5 and factors.dram_gain <= 1
    # network input: 64 words of 1 bit; output: 10 words of 16 bit; weights stay on chip
    assert bound.dram_pj == pytest.approx((64 + 160) * 1300 / 64)
    standby = 3.0 * (0.59 / 1.03) ** 3 * bound.deadline_ns
    assert sum(bound.layer_pj.values()) == pytest.approx(bound.bound_pj - standby, rel=0.05)


def test_a_deadline_that_nothing_meets_is_refused_with_the_fastest_time():
    with pytest.raises(ValueError, match=r"deadline 10 ns for digits on envision: no legal design is faster than"):
        energy_bound_pj(DIGITS, ENVISION, 10.0)


def test_weights_beyond_the_buffer_are_charged():
    gated = energy_bound_pj(DIGITS, _gated(ENVISION), 1e5)
    words = 16 * 9 + 32 * 16 * 9 + 320
    assert gated.dram_pj == pytest.approx((64 + 160 + words) * 1300 / 64)
