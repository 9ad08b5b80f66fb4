"""Misread words and late sums: values by an integer machine, slopes by exact expectations over every fault."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from cooptim.relax import bit_errors
from cooptim.relax.bit_errors import late_sum, near_normal, random_words

DRAWS = 40_000
misread = jax.jit(bit_errors.misread, static_argnums=6)
stuck_cells = jax.jit(bit_errors.stuck_cells, static_argnums=1)


def read_by_hand(code, bits, signed, at_1, at_0):
    """A word of a memory with stuck cells, as text of zeros and ones."""
    word = list(format(code % 2**bits, f"0{bits}b"))
    for place in range(bits):
        cell = bits - 1 - place
        if at_1 >> cell & 1:
            word[place] = "1"
        elif at_0 >> cell & 1:
            word[place] = "0"
    value = int("".join(word), 2)
    return value - 2**bits if signed and word[0] == "1" else value


@pytest.mark.parametrize(("bits", "signed"), [(4, True), (4, False), (2, True)])
def test_every_word_is_read_as_from_cells_with_stuck_bits(bits, signed):
    codes = np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else np.arange(2**bits)
    codes = np.tile(codes, 64)
    key, p, step = jax.random.key(3), jnp.asarray(0.2), jnp.asarray(0.25)
    found = misread(jnp.asarray(0.25 * codes), jnp.asarray(float(bits)), step, step, p, key, signed)
    up, down = (np.asarray(m) for m in stuck_cells(key, codes.shape, jnp.asarray(bits, jnp.int32), p))
    by_hand = [read_by_hand(int(c), bits, signed, int(u), int(d)) for c, u, d in zip(codes, up, down, strict=True)]
    np.testing.assert_array_equal(found, 0.25 * np.asarray(by_hand))
    assert np.all(up & down == 0) and max(np.max(up), np.max(down)) < 2**bits
    wrong = sum(bin(int(c) % 2**bits ^ b % 2**bits).count("1") for c, b in zip(codes, by_hand, strict=True))
    assert wrong / (bits * codes.size) == pytest.approx(0.2, abs=5 * (0.16 / (bits * codes.size)) ** 0.5)


def test_one_signed_bit_is_a_sign_that_turns():
    x = jnp.tile(jnp.asarray([0.5, -0.5]), 500)
    args = jnp.asarray(1.0), jnp.asarray(0.5), jnp.asarray(0.5), jnp.asarray(0.1), jax.random.key(0), True
    found = misread(x, *args)
    assert set(np.unique(found)) == {-0.5, 0.5}
    turned = np.asarray(found != x)
    assert 0.05 < turned[::2].mean() < 0.15 and 0.05 < turned[1::2].mean() < 0.15


def test_nothing_goes_wrong_at_rate_0_nor_in_words_of_32_bits():
    x = jnp.asarray([-0.75, 0.0, 0.5])
    unit, key = jnp.asarray(0.25), jax.random.key(0)

    @jax.jit
    @jax.value_and_grad
    def run(p, bits):
        return jnp.sum((misread(x, bits, unit, unit, p, key, True) - 2 * x) ** 2)

    for bits, rate in ((3.0, 0.0), (32.0, 0.4), (np.inf, 0.4)):
        value, slope = run(jnp.asarray(rate), jnp.asarray(bits))
        assert value == jnp.sum(x**2), bits
        assert np.isfinite(slope) and (bits == 3.0 or slope == 0.0)


def test_cells_of_one_word_and_of_two_fail_independently():
    words, p = 200_000, 0.05
    up, down = stuck_cells(jax.random.key(8), (words,), jnp.asarray(8, jnp.int32), jnp.asarray(p))
    failed = (np.asarray(up | down)[:, None] >> np.arange(8) & 1).astype(float)
    error = (4 * p**2 * (1 - 4 * p**2) / words) ** 0.5
    for a, b in itertools.combinations(range(8), 2):
        assert np.mean(failed[:, a] * failed[:, b]) == pytest.approx(4 * p**2, abs=5 * error)
        assert np.mean(failed[1:, a] * failed[:-1, b]) == pytest.approx(4 * p**2, abs=5 * error)


def test_a_lower_rate_keeps_a_subset_of_the_stuck_cells():
    few, many = (
        stuck_cells(jax.random.key(1), (2000,), jnp.asarray(8, jnp.int32), jnp.asarray(p)) for p in (0.02, 0.1)
    )
    assert np.all(few[0] & ~many[0] == 0)  # stuck at 1 stays at 1
    either = [int(jnp.sum(jax.lax.population_count(up | down))) for up, down in (few, many)]
    np.testing.assert_allclose(either, 16_000 * np.asarray([0.04, 0.2]), rtol=0.1)


CODES, STEP, WEIGHTS = np.asarray([3, -2, 0]), 0.5, np.asarray([1.0, -0.5, 2.0])


def exact_mean(p, loss, codes=CODES):
    """Expectation of a loss of signed 3-bit words over all 2^9 patterns of wrong bits."""
    total = 0.0
    for pattern in itertools.product((0, 1), repeat=9):
        flips = [sum(b << k for k, b in enumerate(pattern[3 * w : 3 * w + 3])) for w in range(3)]
        words = [((c % 8) ^ f) - 8 * (((c % 8) ^ f) > 3) for c, f in zip(codes, flips, strict=True)]
        total += np.prod([p if b else 1 - p for b in pattern]) * loss(STEP * np.asarray(words, float))
    return total


@pytest.fixture(scope="module")
def drawn():
    """Mean loss and slopes in (rate, step) of many draws, at two losses of the words."""
    keys = jax.random.split(jax.random.key(5), DRAWS)

    def one(p, step, key, cubic):
        words = misread(step * jnp.asarray(CODES, float), jnp.asarray(3.0), step, step, p, key, True)
        total = words @ jnp.asarray(WEIGHTS)
        return (total - 1.0) ** 2 + cubic * total**3

    run = jax.jit(jax.vmap(jax.value_and_grad(one, argnums=(0, 1)), (None, None, 0, None)))
    return lambda p, cubic: run(jnp.asarray(p), jnp.asarray(STEP), keys, jnp.asarray(cubic))


@pytest.mark.parametrize("p", [0.02, 0.2, 0.45])
def test_slope_in_the_rate_is_that_of_the_expectation_for_a_quadratic_loss(drawn, p):
    def loss(w):
        return (w @ WEIGHTS - 1.0) ** 2

    value, (slope, _) = drawn(p, 0.0)
    h = 1e-6
    exact = (exact_mean(p + h, loss) - exact_mean(p - h, loss)) / (2 * h)
    for found, wanted in ((value, exact_mean(p, loss)), (slope, exact)):
        error = float(jnp.std(found)) / DRAWS**0.5
        assert abs(float(jnp.mean(found)) - wanted) < 4 * error
        assert error < 0.05 * abs(wanted)  # or the comparison would say nothing


def test_off_a_quadratic_loss_the_slope_is_the_trapezoid(drawn):
    p, unit = 0.1, jnp.asarray(1.0)
    keys = jax.random.split(jax.random.key(2), DRAWS)

    def one(p, key):
        return misread(jnp.asarray([1.0]), jnp.asarray(1.0), unit, unit, p, key, False)[0] ** 3

    slopes = jax.jit(jax.vmap(jax.grad(one), (None, 0)))(jnp.asarray(p), keys)
    # The word 1 of one bit becomes 0: d = -1, f' = 3 and 0, a trapezoid of -1.5 where the loss w^3 falls by 1. The
    # docstring's d^3 f'''/12 is (-1)^3 6/12 = -0.5.
    assert float(jnp.mean(slopes)) == pytest.approx(-1.5, abs=4 * float(jnp.std(slopes)) / DRAWS**0.5)


def test_slopes_in_word_and_step_are_the_straight_through_ones():
    x, key = jnp.asarray([0.75, -0.5, 0.25, 0.0] * 20), jax.random.key(7)

    def read(x, step):
        return misread(x, jnp.asarray(3.0), step, step, jnp.asarray(0.2), key, True)

    tangent = jnp.linspace(0.5, 1.5, x.size)
    out, moved = jax.jvp(read, (x, jnp.asarray(0.25)), (tangent, jnp.asarray(0.0)))
    np.testing.assert_array_equal(moved, tangent)
    _, by_step = jax.jvp(read, (x, jnp.asarray(0.25)), (0 * x, jnp.asarray(1.0)))
    np.testing.assert_allclose(by_step, (out - x) / 0.25)
    assert np.any(by_step != 0)


def test_late_products_are_left_out_in_mean_and_variance():
    rng = np.random.default_rng(0)
    w, x, p, draws = rng.normal(size=60), rng.normal(size=60), 0.15, 20_000
    kept = rng.random((draws, 60)) >= p  # the slow way: each product in time or not
    slow = kept @ (w * x)
    keys = jax.random.split(jax.random.key(0), draws)
    total, squares = jnp.asarray([w @ x]), jnp.asarray([(w**2) @ (x**2)])
    each = jax.vmap(jax.value_and_grad(lambda p, k: late_sum(total, squares, p, k)[0]), (None, 0))
    quick, slope = (np.asarray(a) for a in jax.jit(each)(jnp.asarray(p), keys))
    assert abs(quick.mean() - slow.mean()) < 5 * slow.std() / draws**0.5
    assert quick.std() == pytest.approx(slow.std(), rel=0.03)
    # E y = (1 - p) total; E y^2 = that squared + p (1 - p) squares: both slopes in p by hand
    assert slope.mean() == pytest.approx(-(w @ x), abs=5 * slope.std() / draws**0.5)
    second = 2 * quick * slope
    exact = -2 * (1 - p) * (w @ x) ** 2 + (1 - 2 * p) * (w**2) @ (x**2)
    assert second.mean() == pytest.approx(exact, abs=5 * second.std() / draws**0.5)


def test_a_sum_of_zeros_is_never_late_and_has_finite_slopes():
    def run(p, squares):
        return late_sum(jnp.zeros(3), squares, p, jax.random.key(0)).sum()

    value, slopes = jax.value_and_grad(run, argnums=(0, 1))(jnp.asarray(0.1), jnp.zeros(3))
    assert value == 0 and all(bool(jnp.all(jnp.isfinite(s))) for s in slopes)
    assert np.isfinite(jax.grad(run)(jnp.asarray(0.0), jnp.ones(3)))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_late_sums_of_narrow_floats_are_finite_with_finite_slopes(dtype):
    total, squares = jnp.ones(2000, dtype), jnp.tile(jnp.asarray([0.0, 1.0], dtype), 1000)

    def run(p, squares):
        return jnp.mean(late_sum(total, squares, p, jax.random.key(0)).astype(jnp.float32) ** 2)

    value, slopes = jax.value_and_grad(run, argnums=(0, 1))(jnp.asarray(0.25, dtype), squares)
    assert all(bool(jnp.all(jnp.isfinite(s))) for s in slopes)
    assert float(value) == pytest.approx(0.75**2 + 0.5 * 0.25 * 0.75, rel=0.05)  # half of the sums have a variance


def test_slopes_of_a_late_sum_are_those_of_the_drawn_value():
    squares, p = jnp.asarray([0.5, 2.0]), jnp.asarray(0.2)
    keep = jax.jacobian(late_sum, argnums=(0, 1))(jnp.asarray([1.0, -1.0]), squares, p, jax.random.key(4))
    np.testing.assert_allclose(keep[0], 0.8 * np.eye(2))
    drawn = late_sum(jnp.zeros(2), squares, p, jax.random.key(4))  # spread times the root of squares
    np.testing.assert_allclose(keep[1], np.diag(np.asarray(drawn) / (2 * np.asarray(squares))), rtol=1e-9)


def test_random_words_are_even_in_every_bit_and_independent_of_neighbours_and_of_other_keys():
    count = 200_000
    keys = [jax.random.key(n) for n in (0, 1)] + [jax.random.fold_in(jax.random.key(0), 1)]
    bits = [(np.asarray(random_words(key, (count // 8, 8))).ravel()[:, None] >> np.arange(32)) & 1 for key in keys]
    off = 5 / count**0.5  # five standard errors of a mean of +-1
    signs = [2.0 * b - 1.0 for b in bits]
    for own in signs:
        assert np.max(np.abs(own.mean(0))) < off
        for lag in (1, 2, 8, 16):  # the next element, the next row
            assert np.max(np.abs(own[lag:].T @ own[:-lag])) / (count - lag) < 1.2 * off
    for a, b in itertools.combinations(signs, 2):
        assert np.max(np.abs(a.T @ b)) / count < 1.2 * off
    np.testing.assert_array_equal(random_words(keys[0], (7,)), random_words(keys[0], (7,)))


def test_streams_whose_first_words_are_neighbours_share_no_numbers(monkeypatch):
    keyed = iter([(5, 7), (5 + 0x9E3779B9, 11)])  # the second is the first, one element on, but for its second word
    monkeypatch.setattr(jax.random, "bits", lambda *args: jnp.asarray(next(keyed), jnp.uint32))
    one, other = (np.asarray(random_words(jax.random.key(0), (1000,))) for _ in range(2))
    assert len(np.intersect1d(one, other)) < 3


def test_near_normal_numbers_follow_the_normal_law():
    count = 400_000
    drawn = np.sort(np.asarray(near_normal(jax.random.key(3), (count,), jnp.float64)))
    law = scipy.stats.norm.cdf(drawn)
    # 0.003 of the binomial itself, and 1.63/sqrt(n): Kolmogorov's bound at 1 %
    assert np.max(np.abs(law - (np.arange(count) + 0.5) / count)) < 0.003 + 1.63 / count**0.5
    assert drawn.mean() == pytest.approx(0.0, abs=5 / count**0.5) and drawn.var() == pytest.approx(1.0, abs=0.01)
    # fourth moment of (B - 16 + U - 1/2) / sqrt(8 + 1/12): 3 * 64 - 4 of B, 1/80 of U, six times both variances
    fourth = (3 * 64 - 4 + 1 / 80 + 6 * 8 / 12) / (8 + 1 / 12) ** 2
    assert np.mean(drawn**4) == pytest.approx(fourth, abs=5 * (96 / count) ** 0.5)
    assert np.max(np.abs(drawn)) <= 16.5 / (8 + 1 / 12) ** 0.5
