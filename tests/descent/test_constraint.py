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


def test_penalty_pulls_only_what_is_over_budget_or_has_a_multiplier():
    # 0.5*c + 0.1/2*c^2 at c = 0.2; slack of 0.3 with no multiplier costs nothing
    c, multipliers = jnp.asarray([0.2, -0.3, 0.0]), jnp.asarray([0.5, 0.0, 0.0])
    assert float(penalty(c, multipliers, 0.1)) == pytest.approx(0.5 * 0.2 + 0.05 * 0.04)
    np.testing.assert_allclose(jax.grad(penalty)(c, multipliers, 0.1), [0.52, 0, 0], rtol=1e-6)


def test_multipliers_rise_when_broken_fall_with_slack_and_stay_positive():
    out = raise_multipliers(jnp.asarray([1.0, 1.0, 0.01]), jnp.asarray([9.0, -0.1, -9.0]), jnp.asarray(0.1))
    np.testing.assert_allclose(out, [1.03, 0.99, 0.0], rtol=1e-6)  # 9 is clipped to 0.3
