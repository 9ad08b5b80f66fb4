"""Leaving by confidence: against plain Python, and its gradient against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.relax.leaving import leaving_shares, leaving_stage, log_odds

CONFIDENCE = np.array([[0.3, 2.0, -1.0, 5.0], [1.5, -0.5, 0.7, 9.0]])
MARGIN = np.array([1.0, 0.7])
HARD = np.array([[0, 1, 0, 1], [1, 0, 1, 0], [0, 0, 0, 0]])


def test_log_odds_are_those_of_the_softmax_and_keep_their_resolution():
    logits = np.array([[0.2, 1.5, -0.3], [4.0, 4.0, 0.0]])
    p = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).max(axis=1)
    np.testing.assert_allclose(log_odds(jnp.asarray(logits)), np.log(p / (1 - p)), rtol=1e-12)
    np.testing.assert_allclose(log_odds(jnp.array([90.0, 0.0], jnp.float32)), 90.0)  # p rounds to 1


def test_each_input_leaves_at_the_first_exit_that_it_satisfies():
    # the third input's confidence at the second exit equals the margin there
    np.testing.assert_array_equal(leaving_stage(jnp.asarray(CONFIDENCE), jnp.asarray(MARGIN)), HARD)


def test_shares_are_the_chances_of_independent_decisions_and_harden_with_the_temperature():
    shares = leaving_shares(jnp.asarray(CONFIDENCE), jnp.asarray(MARGIN), 0.5)
    for n in range(4):
        one, two = (1 / (1 + np.exp(-(CONFIDENCE[e, n] - MARGIN[e]) / 0.5)) for e in range(2))
        np.testing.assert_allclose(shares[:, n], [one, (1 - one) * two, (1 - one) * (1 - two)], rtol=1e-12)
    cold = leaving_shares(jnp.asarray(CONFIDENCE), jnp.asarray(MARGIN - 1e-9), 1e-3)
    np.testing.assert_allclose(cold[:, [0, 1, 3]], HARD[:, [0, 1, 3]], atol=1e-9)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_gradient_in_the_margins_is_that_of_finite_differences(temperature):
    worth = np.array([[1.0, 2.0, 0.5, 3.0], [0.2, 1.0, 4.0, 1.0], [2.0, 0.1, 1.0, 0.3]])

    def value(margin):
        return jnp.sum(worth * leaving_shares(jnp.asarray(CONFIDENCE), margin, temperature))

    slope = jax.grad(value)(jnp.asarray(MARGIN))
    for exit_, step in enumerate(np.eye(2) * 1e-6):
        want = (float(value(jnp.asarray(MARGIN + step))) - float(value(jnp.asarray(MARGIN - step)))) / 2e-6
        np.testing.assert_allclose(slope[exit_], want, rtol=1e-6, atol=1e-9)
        assert abs(want) > 1e-3
