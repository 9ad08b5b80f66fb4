"""Budgets: travelling targets, penalties and multipliers, by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.descent.constraint import Budgets, excess, penalty, raise_multipliers, travelling


def test_budget_travels_in_log_and_stops_at_its_target():
    assert travelling(math.log(100), math.log(4), 0.5) == pytest.approx(math.log(20))
    assert travelling(math.log(100), math.log(4), 1.7) == pytest.approx(math.log(4))


def test_free_budgets_do_not_count():
    budgets = Budgets(jnp.log(jnp.asarray([2.0, 1.0, 1.0])), jnp.asarray([1.0, 0.0, 1.0]))
    np.testing.assert_allclose(excess(jnp.log(jnp.asarray([4.0, 9.0, 0.5])), budgets), np.log([2, 1, 0.5]), rtol=1e-6)


def test_penalty_presses_by_multiplier_and_excess_and_never_pulls():
    # slopes max(0, m + 2 c): 0.5 + 0.4, 0.5 - 0.2, and 0 where slack outweighs the multiplier or nothing presses
    c, multipliers = jnp.asarray([0.2, -0.1, -0.3, -0.3]), jnp.asarray([0.5, 0.5, 0.5, 0.0])
    np.testing.assert_allclose(jax.grad(penalty)(c, multipliers, 2.0), [0.9, 0.3, 0, 0], rtol=1e-6)
    # (0.9^2 - 0.5^2 + 0.3^2 - 0.5^2 - 0.5^2) / (2 * 2)
    assert float(penalty(c, multipliers, 2.0)) == pytest.approx((0.81 - 0.25 + 0.09 - 0.25 - 0.25) / 4)
    assert float(penalty(jnp.zeros(3), jnp.asarray([0.0, 1.0, 3.0]), 2.0)) == 0.0


def test_multipliers_rise_when_broken_fall_with_slack_and_stay_positive():
    out = raise_multipliers(jnp.asarray([1.0, 1.0, 0.01]), jnp.asarray([9.0, -0.1, -9.0]), jnp.asarray(0.1))
    np.testing.assert_allclose(out, [1.03, 0.99, 0.0], rtol=1e-6)  # 9 is clipped to 0.3
