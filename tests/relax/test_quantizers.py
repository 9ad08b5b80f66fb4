"""Each quantizer against its paper's formula, written out by hand: values, and slopes in all that they depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.relax.quantizers import INPUT_QUANTIZERS, WEIGHT_QUANTIZERS, Operand

X = np.array([[-1.7, -0.62, -0.3, 0.0], [0.11, 0.34, 0.77, 1.4]])  # [C, K]
UPSTREAM = np.array([[1.0, -2.0, 0.5, 3.0], [-1.0, 2.0, 1.5, -0.5]])


def run(quantizer, bits, step, range_, signed=True, reduced=None, x=X):
    """(words, zeros, slopes of sum(UPSTREAM * words) in x, bits, step and range)."""

    def total(x, bits, step, range_):
        found = quantizer(x, Operand(bits, step, range_, signed, x.size, reduced))
        return jnp.sum(UPSTREAM * found.values), found

    knobs = (jnp.asarray(x), *(jnp.asarray(k, float) for k in (bits, step, range_)))
    slopes, found = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3), has_aux=True))(*knobs)
    return np.asarray(found.values), found.zeros, [np.asarray(s) for s in slopes]


@pytest.mark.parametrize("signed", [True, False])
def test_lsq_is_esser_equation_3_with_his_gradient_scale(signed):
    bits, step = 3, 0.25
    q_n, q_p = (4, 3) if signed else (0, 7)
    words, zeros, (in_x, in_bits, in_step, in_range) = run(WEIGHT_QUANTIZERS["lsq"], bits, step, 9.9, signed)
    v = X / step
    np.testing.assert_allclose(words, np.round(np.clip(v, -q_n, q_p)) * step, atol=1e-12)
    inside = (v > -q_n) & (v < q_p) if signed else (v >= 0) & (v < q_p)
    slope = np.where(inside, np.round(v) - v, np.where(v <= -q_n, -q_n, q_p))
    if not signed:
        slope = np.where(v < 0, 0, slope)
    np.testing.assert_allclose(in_step, (UPSTREAM * slope).sum() / np.sqrt(X.size * q_p), atol=1e-12)
    edge = (not signed) & (X == 0)  # just at an end of the range either slope will do
    np.testing.assert_allclose(in_x[~edge], (UPSTREAM * inside)[~edge], atol=1e-12)
    assert in_bits == 0 and in_range == 0 and [float(n) for n in zeros[0]] == [1.0, step / 2]


@pytest.mark.parametrize("signed", [True, False])
def test_pact_clips_at_a_range_that_only_what_it_clips_moves(signed):
    bits, alpha = 2, 0.6
    step = alpha / (1 if signed else 3)
    words, _, (in_x, in_bits, in_step, in_range) = run(INPUT_QUANTIZERS["pact"], bits, 77.0, alpha, signed)
    low = -alpha if signed else 0.0
    np.testing.assert_allclose(words, np.round(np.clip(X, low, alpha) / step) * step, atol=1e-12)
    beyond = (X >= alpha) * 1.0 - (X <= -alpha) * signed
    np.testing.assert_allclose(in_range, (UPSTREAM * beyond).sum(), atol=1e-12)
    np.testing.assert_allclose(in_x, UPSTREAM * ((X > low) & (X < alpha)), atol=1e-12)
    assert in_bits == 0 and in_step == 0


def test_dorefa_weights_are_equation_9_with_the_slope_of_its_tanh():
    bits, range_ = 2, 0.8
    words, zeros, (in_x, in_bits, in_step, in_range) = run(WEIGHT_QUANTIZERS["dorefa"], bits, 1.0, range_)
    t = np.tanh(X)
    most = np.abs(t).max()
    np.testing.assert_allclose(words, range_ * (2 * np.round(3 * (t / (2 * most) + 0.5)) / 3 - 1), atol=1e-12)
    # The straight-through words are range * t/most; t/most also falls with the largest magnitude, at X[0, 0].
    by_hand = UPSTREAM * range_ * (1 - t**2) / most
    by_hand[0, 0] -= (UPSTREAM * range_ * t).sum() / most**2 * np.sign(t[0, 0]) * (1 - t[0, 0] ** 2)
    np.testing.assert_allclose(in_x, by_hand, atol=1e-12)
    assert in_bits == in_step == in_range == 0 and float(zeros[0][1]) < 0 and (words != 0).all()
    one, _, (in_x, *_) = run(WEIGHT_QUANTIZERS["dorefa"], 1, 1.0, range_)
    np.testing.assert_allclose(one, np.where(X < 0, -1, 1) * np.abs(X).mean(), atol=1e-12)
    np.testing.assert_allclose(in_x, UPSTREAM, atol=1e-12)


def test_dorefa_inputs_are_clipped_where_nothing_learns():
    words, _, (in_x, *others) = run(INPUT_QUANTIZERS["dorefa"], 2, 5.0, 1.0, signed=False)
    np.testing.assert_allclose(words, np.round(3 * np.clip(X, 0, 1)) / 3, atol=1e-12)
    inside = (X > 0) & (X < 1)
    np.testing.assert_allclose(in_x[X != 0], (UPSTREAM * inside)[X != 0], atol=1e-12)
    assert all(float(slope) == 0 for slope in others)


def test_sign_weights_are_xnor_scaled_a_channel():
    words, zeros, (in_x, *others) = run(WEIGHT_QUANTIZERS["sign"], 1, 5.0, 5.0, reduced=(0,))
    alpha = np.abs(X).mean(axis=0)
    np.testing.assert_allclose(words, np.where(X < 0, -1, 1) * alpha, atol=1e-12)
    np.testing.assert_allclose(in_x, UPSTREAM * (1 / 2 + alpha * (np.abs(X) <= 1)), atol=1e-12)
    assert all(float(slope) == 0 for slope in others) and float(zeros[0][1]) < 0


@pytest.mark.parametrize("signed", [True, False])
def test_sign_inputs_pass_within_the_hard_tanh(signed):
    words, zeros, (in_x, _, _, in_range) = run(INPUT_QUANTIZERS["sign"], 1, 5.0, 0.5, signed)
    np.testing.assert_allclose(words, 0.5 * np.where(X < 0, -1, 1) if signed else 0.5 * (X > 0.25))
    low = -0.5 if signed else 0.0
    np.testing.assert_allclose(in_x, UPSTREAM * ((X >= low) & (X <= 0.5)), atol=1e-12)
    np.testing.assert_allclose(in_range, (UPSTREAM * ((X > 0.5) * 1.0 - (X < -0.5) * signed)).sum(), atol=1e-12)
    assert float(zeros[0][1]) == (-1.0 if signed else 0.25)


@pytest.mark.parametrize("reduced", [None, (0,)])
def test_ternary_keeps_what_exceeds_seven_tenths_of_the_mean(reduced):
    words, zeros, (in_x, *others) = run(WEIGHT_QUANTIZERS["ternary"], 2, 5.0, 5.0, reduced=reduced)
    delta = 0.7 * np.abs(X).mean(axis=reduced, keepdims=True)
    kept = np.abs(X) > delta
    alpha = (np.abs(X) * kept).sum(axis=reduced, keepdims=True) / kept.sum(axis=reduced, keepdims=True)
    np.testing.assert_allclose(words, np.where(kept, np.where(X < 0, -alpha, alpha), 0), atol=1e-12)
    np.testing.assert_allclose(in_x, UPSTREAM, atol=1e-12)
    np.testing.assert_allclose(zeros[0][1], delta)
    assert all(float(slope) == 0 for slope in others)


@pytest.mark.parametrize("signed", [True, False])
def test_a_blend_is_its_neighbours_and_its_slope_in_bits_their_difference(signed):
    range_ = 0.9

    def neighbour(bits):
        step = range_ / (2 ** (bits - signed) - 1)
        return np.round(np.clip(X, -range_ if signed else 0, range_) / step) * step, step / 2

    words, zeros, (in_x, in_bits, in_step, in_range) = run(INPUT_QUANTIZERS["blend"], 3.3, 5.0, range_, signed)
    (three, cut_3), (four, cut_4) = neighbour(3), neighbour(4)
    np.testing.assert_allclose(words, 0.7 * three + 0.3 * four, atol=1e-12)
    np.testing.assert_allclose(in_bits, (UPSTREAM * (four - three)).sum(), atol=1e-9)
    inside = (X > (-range_ if signed else 0)) & (X < range_)
    np.testing.assert_allclose(in_x[X != 0], (UPSTREAM * inside)[X != 0], atol=1e-12)
    # Inside, the words follow the range as rounding does; beyond, they are the range.
    moved = np.where(inside, words - X, np.clip(X, -range_ if signed else 0, range_)) / range_
    np.testing.assert_allclose(in_range, (UPSTREAM * moved).sum(), atol=1e-12)
    assert in_step == 0
    np.testing.assert_allclose([[float(n) for n in pair] for pair in zeros], [[0.7, cut_3], [0.3, cut_4]])
    whole, _, _ = run(INPUT_QUANTIZERS["blend"], 4, 5.0, range_, signed)
    np.testing.assert_allclose(whole, four, atol=1e-15)


@pytest.mark.parametrize("name", sorted({*WEIGHT_QUANTIZERS, *INPUT_QUANTIZERS}))
def test_slopes_stay_finite_at_32_bits_and_beyond(name):
    table = WEIGHT_QUANTIZERS if name in WEIGHT_QUANTIZERS else INPUT_QUANTIZERS
    for bits in (32.0, np.inf):
        words, _, slopes = run(table[name], bits, 0.1, 1.0, reduced=(0,))
        assert np.isfinite(words).all() and all(np.isfinite(s).all() for s in slopes)
