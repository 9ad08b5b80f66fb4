"""Activity, clock, supply and leakage laws against published anchors and hand arithmetic."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.hardware import dvafs, load_machine

ENVISION = load_machine("envision")
ONE, TWO, FOUR = ENVISION.modes
S = ENVISION.supply
V = np.linspace(0.60, 1.1, 23)


def _k(mode, weight_bits, input_bits):
    return float(dvafs.activity_divisor(ENVISION.datapath, mode, jnp.array(weight_bits), jnp.array(input_bits)))


def test_the_divisor_meets_the_published_anchors():
    assert _k(ONE, 16.0, 16.0) == pytest.approx(1.0)
    assert _k(ONE, 4.0, 4.0) == pytest.approx(12.5)  # k1 at 4 b, DATE 2017 Table I
    assert _k(FOUR, 4.0, 4.0) == pytest.approx(3.2)  # k3 at 4x4b


def test_off_the_diagonal_the_divisor_lies_between_those_of_both_widths():
    assert _k(ONE, 4.0, 16.0) == pytest.approx(12.5**0.5)
    assert _k(ONE, 4.0, 16.0) == _k(ONE, 16.0, 4.0)


def test_a_width_above_the_slot_gates_nothing():
    assert _k(FOUR, 16.0, 16.0) == _k(FOUR, 4.0, 4.0)


def test_both_widths_reach_the_divisor_with_a_gradient():
    grads = jax.grad(lambda b: dvafs.activity_divisor(ENVISION.datapath, TWO, b[0], b[1]))(jnp.array([3.0, 6.0]))
    assert (grads < 0).all()


def test_the_nominal_clock_is_reached_at_the_nominal_supply():
    assert float(dvafs.max_clock_ghz(S, S.nominal_v, jnp.array(1.0))) == pytest.approx(0.2)
    assert float(dvafs.max_clock_ghz(S, S.nominal_v, jnp.array(0.5))) == pytest.approx(0.4)


def test_the_speed_follows_the_alpha_power_law():
    low, high = 0.7, 1.0  # by hand: (1.0-vt)^a/1.0 over (0.7-vt)^a/0.7
    vt, a = float(S.threshold_v), float(S.alpha)
    ratio = ((high - vt) / (low - vt)) ** a * low / high
    assert float(dvafs.speed(S, jnp.array(high)) / dvafs.speed(S, jnp.array(low))) == pytest.approx(ratio)


@pytest.mark.parametrize("volts", [0.0, 0.3, 0.5879])
def test_below_the_threshold_nothing_moves_and_nothing_breaks(volts):
    value, slope = jax.value_and_grad(lambda v: dvafs.max_clock_ghz(S, v, jnp.array(1.0)))(jnp.array(max(volts, 0.01)))
    assert value == 0.0 and slope == 0.0


@pytest.mark.parametrize("path", [0.3, 0.7, 1.0])
def test_the_supply_for_a_clock_inverts_the_clock_at_a_supply(path):
    clock = dvafs.max_clock_ghz(S, jnp.asarray(V), jnp.array(path))
    back = dvafs.supply_for_clock(S, clock, jnp.full_like(clock, path))
    np.testing.assert_allclose(back, V, rtol=1e-12)


def test_the_supply_for_a_clock_has_the_inverse_slope():
    slope = jax.vmap(jax.grad(lambda v: dvafs.max_clock_ghz(S, v, jnp.array(0.8))))(jnp.asarray(V))
    clock = dvafs.max_clock_ghz(S, jnp.asarray(V), jnp.array(0.8))
    inverse = jax.vmap(jax.grad(lambda f: dvafs.supply_for_clock(S, f, jnp.array(0.8))))(clock)
    np.testing.assert_allclose(inverse * slope, 1.0, rtol=1e-9)


def test_a_slow_clock_stays_at_the_floor():
    assert float(dvafs.supply_for_clock(S, jnp.array(1e-6), jnp.array(1.0))) == float(S.floor_v)


def test_the_critical_path_shrinks_linearly_with_the_width():
    paths = dvafs.critical_path(S, 16, jnp.array([16.0, 8.0, 4.0, 32.0]))
    share = float(S.path_share)
    np.testing.assert_allclose(paths, [1.0, 1 - share / 2, 1 - 0.75 * share, 1.0])


def test_dynamic_energy_quadruples_when_the_supply_doubles():
    low, high = dvafs.dynamic_scale(S, jnp.array(0.5)), dvafs.dynamic_scale(S, jnp.array(1.0))
    assert float(high / low) == pytest.approx(4.0)


def test_a_fixed_rail_does_not_scale():
    fixed = dataclasses.replace(S, fixed_share=jnp.array(0.25))
    assert float(dvafs.dynamic_scale(fixed, 0.5 * S.nominal_v)) == pytest.approx(0.75 * 0.25 + 0.25)


def test_leakage_follows_its_exponent_and_the_memory_size():
    half_v = dvafs.leakage_mw(ENVISION, 0.5 * S.nominal_v, ENVISION.buffer.size_bits)
    assert float(half_v) == pytest.approx(3.0 / 8)  # 1 % of 300 mW, cube of 1/2
    double = dvafs.leakage_mw(ENVISION, S.nominal_v, 2 * ENVISION.buffer.size_bits)
    assert float(double) == pytest.approx(3.0 * 1.5)  # half of it is memory
    assert float(dvafs.leakage_mw(ENVISION, jnp.array(0.0), ENVISION.buffer.size_bits)) == 0.0


def test_grids_start_at_the_floor_and_end_at_the_ceiling():
    grid = dvafs.supply_grid(S)
    assert len(grid) == 45 and grid[0] == pytest.approx(0.59) and grid[-1] == pytest.approx(1.03)


def test_a_clock_snaps_down_and_stays_on_the_grid():
    clocks = dvafs.clock_on_grid(S, jnp.array([0.1999, 0.2, 0.0014]))
    np.testing.assert_allclose(clocks, [0.199, 0.2, 0.001], rtol=1e-12)
    np.testing.assert_array_equal(dvafs.clock_on_grid(S, clocks), clocks)


LAWS = {
    "divisor": lambda x: dvafs.activity_divisor(ENVISION.datapath, FOUR, x[0], x[1]),
    "path": lambda x: dvafs.critical_path(S, 16, x[0]),
    "clock": lambda x: dvafs.max_clock_ghz(S, x[2], dvafs.critical_path(S, 16, x[1])),
    "supply": lambda x: dvafs.supply_for_clock(S, x[3], dvafs.critical_path(S, 16, x[1])),
    "scale": lambda x: dvafs.dynamic_scale(S, x[2]),
    "leakage": lambda x: dvafs.leakage_mw(ENVISION, x[2], x[4]),
}


@pytest.mark.parametrize("law", LAWS)
def test_every_law_has_the_gradient_of_finite_differences_in_each_coordinate(law):
    rng = np.random.default_rng(3)
    low, high = np.array([2.0, 2.0, 0.62, 0.05, 1e5]), np.array([3.9, 3.9, 1.03, 0.4, 4e6])
    points = jnp.asarray(rng.uniform(low, high, (10_000, 5)))
    f = jax.jit(jax.vmap(LAWS[law]))
    exact = jax.jit(jax.vmap(jax.grad(LAWS[law])))(points)
    for j in range(5):
        h = 1e-5 * points[:, j]
        step = jnp.zeros_like(points).at[:, j].set(h)
        # fourth order: the central difference and its double step
        near, far = (
            (f(points + step) - f(points - step)) / (2 * h),
            (f(points + 2 * step) - f(points - 2 * step)) / (4 * h),
        )
        numeric = (4 * near - far) / 3
        scale = jnp.maximum(jnp.abs(numeric), 1e-6 * jnp.abs(f(points) / points[:, j]))
        assert float(jnp.max(jnp.abs(exact[:, j] - numeric) / scale)) < 1e-4, j
