"""Relaxations: exact forward values by hand, gradients by the rule that each promises."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.relax.bitwidth import bits_of, integer_bits, quantize, range_of
from cooptim.relax.choice import hard_choice, nested_choice, straight_through_nested_choice
from cooptim.relax.mask import density, prune
from cooptim.relax.rounding import ceil_ste, clip_ste, round_ste


def test_rounding_is_exact_forward_and_identity_backward():
    x = jnp.asarray([-1.5, -0.2, 0.5, 1.2, 2.5])
    np.testing.assert_array_equal(round_ste(x), [-2, 0, 0, 1, 2])  # ties to even
    np.testing.assert_array_equal(ceil_ste(x), [-1, 0, 1, 2, 3])
    np.testing.assert_array_equal(clip_ste(x, -1.0, 1.0), [-1, -0.2, 0.5, 1, 1])
    for f in (round_ste, ceil_ste, lambda v: clip_ste(v, -1.0, 1.0)):
        np.testing.assert_array_equal(jax.grad(lambda v, f=f: f(v).sum())(x), np.ones(5))


@pytest.mark.parametrize(
    ("levels", "signed", "bits"), [(1, 1, 2), (7, 1, 4), (8, 1, 5), (127, 1, 8), (15, 0, 4), (16, 0, 5)]
)
def test_width_is_the_smallest_that_holds_the_levels(levels, signed, bits):
    # -7..7 are 15 levels: 4 bits; -8..8 are 17: 5 bits; 0..15 are 16: 4 bits.
    assert float(integer_bits(jnp.asarray(0.25), jnp.asarray(0.25 * levels), float(signed))) == bits


def test_range_inverts_width():
    bits = jnp.asarray([2.0, 3.5, 8.0])
    chex.assert_trees_all_close(bits_of(jnp.full(3, 0.3), range_of(jnp.full(3, 0.3), bits, 1.0), 1.0), bits, rtol=1e-6)


def test_quantizer_rounds_to_steps_and_saturates_at_the_range():
    x = jnp.asarray([-9.0, -0.26, -0.1, 0.0, 0.1, 0.3, 0.76, 9.0])
    signed = quantize(x, jnp.asarray(3.0), jnp.asarray(0.25), jnp.asarray(0.75), True)
    np.testing.assert_allclose(signed, [-0.75, -0.25, 0, 0, 0, 0.25, 0.75, 0.75])
    unsigned = quantize(x, jnp.asarray(2.0), jnp.asarray(0.25), jnp.asarray(0.75), False)
    np.testing.assert_allclose(unsigned, [0, 0, 0, 0, 0, 0.25, 0.75, 0.75])


def test_quantizer_gradients_are_those_of_step_and_range():
    # x = 0.6 at step 0.25 rounds to 0.5: dq/dstep = (0.5 - 0.6)/0.25 = -0.4. x = 2 saturates: dq/drange = 1.
    def q(x, step, range_):
        return quantize(x, jnp.asarray(3.0), step, range_, True)

    d_x, d_step, d_range = jax.grad(q, argnums=(0, 1, 2))(jnp.asarray(0.6), jnp.asarray(0.25), jnp.asarray(0.75))
    np.testing.assert_allclose([d_x, d_step, d_range], [1.0, -0.4, 0.0], atol=1e-6)
    d_x, d_step, d_range = jax.grad(q, argnums=(0, 1, 2))(jnp.asarray(-2.0), jnp.asarray(0.25), jnp.asarray(0.75))
    np.testing.assert_allclose([d_x, d_step, d_range], [0.0, 0.0, -1.0], atol=1e-6)


def test_one_signed_bit_is_the_sign_at_the_range():
    x, bits = jnp.array([-3.0, -0.1, 0.0, 0.2, 5.0]), jnp.asarray(1.0)
    found = quantize(x, bits, jnp.asarray(0.5), jnp.asarray(0.5), True)
    np.testing.assert_array_equal(found, [-0.5, -0.5, 0.5, 0.5, 0.5])

    def weighted(x, range_):
        return jnp.sum(jnp.arange(1.0, 6.0) * quantize(x, bits, range_, range_, True))

    by_x, by_range = jax.grad(weighted, argnums=(0, 1))(x, jnp.asarray(0.5))
    np.testing.assert_array_equal(by_x, [1, 2, 3, 4, 5])
    assert float(by_range) == -1 - 2 + 3 + 4 + 5


def test_thirty_two_bits_leave_a_tensor_to_the_last_bit():
    x = jnp.asarray(np.random.default_rng(0).normal(size=100), jnp.float32)
    np.testing.assert_array_equal(quantize(x, jnp.asarray(32.0), jnp.asarray(0.5), jnp.asarray(1.0), True), x)


def test_pruning_zeroes_small_weights_and_lets_them_learn():
    w, t = jnp.asarray([0.05, -0.3, 0.11, 1.0]), jnp.asarray(0.1)
    np.testing.assert_allclose(prune(w, t), [0, -0.3, 0.11, 1.0])
    d_w, d_t = jax.grad(lambda w, t: prune(w, t).sum(), argnums=(0, 1))(w, t)
    np.testing.assert_array_equal(d_w, np.ones(4))
    # ramp |w|/(2t) inside |w| < 2t: d/dt (w |w|/(2t)) = -w|w|/(2t^2) for 0.05 and 0.11, 0 for the others
    np.testing.assert_allclose(d_t, -(0.05**2 + 0.11**2) / (2 * 0.1**2), rtol=1e-6)


def test_density_counts_exactly_and_falls_as_the_cut_rises():
    x, cut = jnp.asarray([0.0, 0.05, -0.5, 0.15, 3.0]), jnp.asarray(0.1)
    assert float(density(x, cut)) == pytest.approx(3 / 5)
    d_x, d_cut = jax.grad(density, argnums=(0, 1))(x, cut)
    # ramp |x|/(2 cut): slope 1/(2*0.1)/5 = 1 for 0.05 and 0.15 inside it, none outside
    np.testing.assert_allclose(d_x[jnp.asarray([1, 3, 4])], [1.0, 1.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(d_cut, -(0.05 + 0.15) / (2 * 0.1**2) / 5, rtol=1e-6)


def test_choice_takes_the_largest_legal_logit():
    logits, legal = jnp.asarray([[3.0, 1.0, 2.0]]), jnp.asarray([[0.0, 1.0, 1.0]])
    feasible = jnp.asarray([[0.3, 0.9, 1.0]])
    t = jnp.asarray(1.0)
    np.testing.assert_array_equal(straight_through_nested_choice(logits, t, legal, feasible), [[0, 0, 1]])
    np.testing.assert_array_equal(hard_choice(logits), [[1, 0, 0]])
    weights = jnp.asarray([[1.0, 5.0, 2.0]])
    for at in (0, 1):
        args = (logits, feasible)
        hard = jax.grad(lambda *v: (weights * straight_through_nested_choice(v[0], t, legal, v[1])).sum(), argnums=at)(
            *args
        )
        soft = jax.grad(lambda *v: (weights * nested_choice(v[0], t, v[1])).sum(), argnums=at)(*args)
        chex.assert_trees_all_close(hard, soft)
        assert bool(jnp.any(soft != 0))


def test_nested_choice_is_the_mixture_of_what_may_be_taken():
    logits, feasible = jnp.log(jnp.asarray([8.0, 3.0, 1.0])), jnp.asarray([0.2, 0.7, 1.0])
    shares = nested_choice(logits, jnp.asarray(1.0), feasible)
    # 0.2: all three, 8/12 3/12 1/12; 0.5: the last two, 3/4 1/4; 0.3: the last alone
    np.testing.assert_allclose(shares, [0.2 * 8 / 12, 0.2 * 3 / 12 + 0.5 * 3 / 4, 0.2 / 12 + 0.5 / 4 + 0.3], rtol=1e-6)


def test_feasibility_is_not_sharpened_with_the_preference():
    """At a low temperature the preferred alternative's share is its feasibility, and so is the slope."""
    logits = jnp.asarray([3.0, 1.5, 0.0])

    def share(f):
        return nested_choice(logits, jnp.asarray(0.05), jnp.stack([f, 0.9 + 0.0 * f, 1.0 + 0.0 * f]))[0]

    value, slope = jax.value_and_grad(share)(jnp.asarray(0.4))
    assert float(value) == pytest.approx(0.4, abs=1e-6) and float(slope) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("cut", [0.0, 1e-19, 1e-12])
def test_masks_have_finite_gradients_down_to_a_threshold_of_zero(cut):
    w = jnp.asarray([0.0, 1e-20, -1e-13, 0.5], jnp.float32)
    for f in (lambda w, c: jnp.sum(prune(w, c) ** 2), density):
        for gradient in jax.grad(f, argnums=(0, 1))(w, jnp.asarray(cut, jnp.float32)):
            assert np.isfinite(np.asarray(gradient)).all()
