"""What changes of mode and supply between layers take: by hand, by gradient, and nothing where a file says nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.compile import compiled_once
from cooptim.cost.bound import energy_bound_pj
from cooptim.cost.evaluate import evaluate
from cooptim.cost.switching import changes
from cooptim.hardware import Switching
from cooptim.mapping.frontier import tilings
from tests.cost.cases import DIGITS, MACHINES, as_design, random_choice

ENVISION = MACHINES["envision"]
RAIL_PF, MODE_NS, STEP_NS = 2000.0, 50.0, 4.0
SWITCHED = dataclasses.replace(ENVISION, switching=Switching(*(jnp.asarray(x) for x in (RAIL_PF, MODE_NS, STEP_NS))))
SIZE = ENVISION.buffer.size_bits


def test_energy_and_time_of_each_change_by_hand():
    mode = jnp.eye(3)[jnp.array([0, 0, 2])]
    found = changes(SWITCHED, mode, jnp.array([0.70, 0.90, 0.80]), SIZE)
    # from 0.80 V down to 0.70 and back to 1x16b; up by 20 steps of 10 mV; down by 10 and to 4x4b
    time = np.array([10 * 4 + 50, 20 * 4, 10 * 4 + 50.0])
    leak = 3.0 * (np.array([0.70, 0.90, 0.80]) / 1.03) ** 3  # 1 % of 300 mW, cube of the supply
    charge = np.array([0.0, 2000 * (0.81 - 0.49), 0.0])
    np.testing.assert_allclose(found.time_ns, time, rtol=1e-12)
    np.testing.assert_allclose(found.energy_pj, charge + leak * time, rtol=1e-12)


def test_the_report_carries_what_the_changes_take_into_energy_latency_and_standby():
    table = tilings(DIGITS, ENVISION)
    design, stats = as_design(ENVISION, table, random_choice(DIGITS, ENVISION, table, np.random.default_rng(4)))
    plain = evaluate(DIGITS, ENVISION, design, stats, period_ns=1e6)
    found = evaluate(DIGITS, SWITCHED, design, stats, period_ns=1e6)
    volts, mode = np.asarray(design.supply_v), np.argmax(np.asarray(design.mode), axis=1)
    before, was = np.roll(volts, 1), np.roll(mode, 1)
    time = 50.0 * (mode != was) + 4.0 * np.abs(volts - before) / 0.01
    energy = 2000.0 * np.maximum(volts**2 - before**2, 0.0) + 3.0 * (volts / 1.03) ** 3 * time
    np.testing.assert_allclose(found.switching_ns, time, rtol=1e-9)
    np.testing.assert_allclose(found.switching_pj, energy, rtol=1e-9)
    idle_mw = 3.0 * (0.59 / 1.03) ** 3  # at the retention supply, for as much less time
    assert float(found.total_latency_ns - plain.total_latency_ns) == pytest.approx(time.sum())
    more = float(found.total_energy_pj - plain.total_energy_pj)
    assert more == pytest.approx(energy.sum() - idle_mw * time.sum(), rel=1e-9)
    assert energy.sum() > 100.0  # the case changes something


def test_without_the_section_and_with_zeros_in_it_nothing_differs_in_a_single_bit():
    table = tilings(DIGITS, ENVISION)
    zeros = dataclasses.replace(ENVISION, switching=Switching(*jnp.zeros(3)))
    rng = np.random.default_rng(0)
    for _ in range(3):
        design, stats = as_design(ENVISION, table, random_choice(DIGITS, ENVISION, table, rng))
        plain, free = (evaluate(DIGITS, m, design, stats, period_ns=1e6) for m in (ENVISION, zeros))
        assert plain.switching_pj is None and plain.switching_ns is None
        assert float(plain.total_energy_pj) == float(free.total_energy_pj)
        assert float(plain.total_latency_ns) == float(free.total_latency_ns)
        np.testing.assert_array_equal(free.switching_pj, 0.0)


def test_layers_in_a_ring_take_the_same_from_whichever_layer_they_start():
    mode, volts = jnp.eye(3)[jnp.array([0, 1, 1, 2])], jnp.array([0.7, 0.9, 0.8, 1.0])
    sums = [
        [float(x.sum()) for x in changes(SWITCHED, jnp.roll(mode, k, 0), jnp.roll(volts, k), SIZE)] for k in range(4)
    ]
    np.testing.assert_allclose(sums, [sums[0]] * 4, rtol=1e-12)


def test_a_network_of_one_layer_never_changes():
    one = changes(SWITCHED, jnp.array([[0.2, 0.3, 0.5]]), jnp.array([0.9]), SIZE)
    assert float(one.energy_pj[0]) == 0.0 and float(one.time_ns[0]) == 0.0


def test_shares_of_modes_change_as_often_as_two_draws_differ():
    mode = jnp.array([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]])
    found = changes(SWITCHED, mode, jnp.array([0.8, 0.8]), SIZE)
    np.testing.assert_allclose(found.time_ns, 50.0 * (1 - 0.5 * 0.1 - 0.5 * 0.2), rtol=1e-12)


@pytest.mark.parametrize("term", ["energy_pj", "time_ns"])
def test_each_change_has_the_gradient_of_finite_differences_in_each_coordinate(term):
    rng, layers = np.random.default_rng(1), 4
    size = layers * 4 + 4

    def value(x):
        mode, volts = x[: 3 * layers].reshape(layers, 3), x[3 * layers : 4 * layers]
        rail = Switching(*x[4 * layers : 4 * layers + 3])
        return jnp.sum(getattr(changes(dataclasses.replace(ENVISION, switching=rail), mode, volts, x[-1]), term))

    x = np.concatenate([
        rng.dirichlet(np.ones(3), (64, layers)).reshape(64, -1), rng.uniform(0.6, 1.0, (64, layers)),
        rng.uniform(10.0, 100.0, (64, 3)), rng.uniform(1e5, 1e6, (64, 1)),
    ], axis=1)  # fmt: skip
    f, exact = compiled_once(jax.vmap(value)), np.asarray(compiled_once(jax.vmap(jax.grad(value)))(x))
    for j in range(size):
        h = 1e-6 * x[:, j]
        step = np.zeros_like(x)
        step[:, j] = h
        numeric = np.asarray((f(x + step) - f(x - step)) / (2 * h))
        np.testing.assert_allclose(exact[:, j], numeric, rtol=2e-5, atol=1e-5 * np.abs(exact[:, j]).max() + 1e-12)
    assert (np.abs(exact).max(axis=0)[: 4 * layers] > 0).all()


def test_the_bound_stays_below_designs_that_change_mode_and_supply():
    table, rng = tilings(DIGITS, ENVISION), np.random.default_rng(8)
    priced = compiled_once(lambda d, s, period: evaluate(DIGITS, SWITCHED, d, s, period_ns=period))
    for _ in range(8):
        choice = random_choice(DIGITS, ENVISION, table, rng)
        choice |= {"weight_density": [0.0] * 3, "input_density": [0.0] * 3}
        design, stats = as_design(ENVISION, table, choice)
        period = float(priced(design, stats, 1.0).total_latency_ns)
        bound = energy_bound_pj(DIGITS, SWITCHED, period).bound_pj
        assert bound <= float(priced(design, stats, period).total_energy_pj)
