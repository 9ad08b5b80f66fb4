"""Requantization by hand: ties, negative numbers, saturation; and against exact fractions."""

import fractions
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.integer.arithmetic import fixed_point, requantized, rounded_shift
from cooptim.integer.program import Node
from cooptim.network.integer import rounded


def words(value, multiplier, shift, bias=0, low=-128, high=127):
    arrays = {"multiplier": multiplier, "shift": shift, "bias": bias, "low": low, "high": high}
    arrays = {name: np.asarray(array, np.int64) for name, array in arrays.items()}
    exact = requantized(np.asarray(value, np.int64), **arrays)
    floats = rounded._requantize(Node("requantize", (0,), {}, arrays, 0), jnp.asarray(np.asarray(value), jnp.float32))
    assert floats.dtype == jnp.float32
    return exact.tolist(), np.asarray(floats, np.int64).tolist()


@pytest.mark.parametrize(
    ("value", "multiplier", "shift", "bias", "wanted"),
    [
        # quarters: 1.5, 2.5, -1.5, -2.5 are ties, 1.25 and -1.75 are not
        ([6, 10, -6, -10, 5, -7], 1, 2, 0, [2, 2, -2, -2, 1, -2]),
        # 3 * 5 / 2 = 7.5, -7.5; with a bias of 1: 8 and -7
        ([5, -5], 3, 1, 0, [8, -8]),
        ([5, -5], 3, 1, 1, [8, -7]),
        # no shift: the product itself
        ([7, -7], 3, 0, 2, [23, -19]),
        # 4097 * 4096 / 2^13 = 2048.5 and 12291 / 2^13 * 4096 = 6145.5: saturated at 127; -128 below
        ([4097, -4097], 4096, 13, 0, [127, -128]),
        # 2^12 + 2^11 = 1.5 * 2^12, tie at the limb's border, up to 2; one less stays at 1
        ([6144, 6143, 2048, -2048, -6144], 1, 12, 0, [2, 1, 0, 0, -2]),
        # beyond the limb: 2^14 + 2^13 over 2^14 is 1.5; the 1 in the last place decides that 8193 / 2^14 is above 1/2
        ([24576, 8192, 8193, 8191, -8193], 1, 14, 0, [2, 0, 1, 0, -1]),
    ],
)
def test_requantization_worked_by_hand(value, multiplier, shift, bias, wanted):
    assert words(value, multiplier, shift, bias) == (wanted, wanted)


def test_requantization_equals_exact_fractions_in_both_arithmetics():
    rng = np.random.default_rng(0)
    n = 4000
    value = rng.integers(-(2**24) + 1, 2**24, n)
    multiplier = rng.integers(-(2**15) + 1, 2**15, n)
    shift = rng.integers(0, 41, n)
    bias = rng.integers(-(2**30), 2**30, n)
    # a third of them are ties: the sum before the shift is an odd multiple of half
    tie = (rng.random(n) < 0.34) & (shift > 0)
    half = np.int64(1) << np.maximum(shift - 1, 0)
    total = value * multiplier + bias
    bias = np.where(tie, bias + half - total % (2 * half), bias)
    fits = np.abs((value * multiplier + bias) >> shift) < 2**30
    value, multiplier, shift, bias = (a[fits] for a in (value, multiplier, shift, bias))
    wanted = [
        round(fractions.Fraction(int(v) * int(m) + int(b), 2 ** int(s)))  # Python rounds fractions half to even
        for v, m, s, b in zip(value, multiplier, shift, bias, strict=True)
    ]
    limits = np.full(len(value), -(2**31) + 1), np.full(len(value), 2**31 - 1)
    exact, floats = words(value, multiplier, shift, bias, *limits)
    assert exact == wanted
    small = [i for i, w in enumerate(wanted) if abs(w) < 2**24]  # what float32 holds
    assert len(small) > 2000 and [floats[i] for i in small] == [wanted[i] for i in small]


def test_rounded_shift_of_ties_goes_to_the_even_neighbour():
    assert rounded_shift(np.array([1, 3, 5, -1, -3, -5]), np.array(1)).tolist() == [0, 2, 2, 0, -2, -2]


def test_a_fixed_point_multiplier_uses_all_its_bits():
    # 0.3 = 0.6 / 2: 0.6 * 2^15 = 19660.8; 1.99999 rounds up to 2^15, so to 2^14 with one shift less; zero stays zero
    multiplier, shift, bias = fixed_point(np.array([0.3, 1.99999999, -0.75, 0.0]), np.array([0.0, 0.0, 0.5, 3.25]), 15)
    assert multiplier.tolist() == [19661, 2**14, -24576, 0]
    assert shift.tolist()[:3] == [16, 13, 15] and bias.tolist()[2] == 2**14
    assert bias[3] / 2.0 ** shift[3] == 3.25


@pytest.mark.parametrize(("factor", "offset", "words"), [(2.0**20, 0.0, "right shift"), (np.nan, 0.0, "not finite")])
def test_factors_without_a_multiplier_are_refused(factor, offset, words):
    with pytest.raises(ValueError, match=words):
        fixed_point(np.array([factor]), np.array([offset]), 15)


def test_the_executor_needs_no_jax():
    program = "import sys; sys.modules['jax'] = None; import cooptim.integer; print(len(cooptim.integer.__all__))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "8", "")


def test_jitted_float32_rounds_the_same():
    value = np.arange(-5000, 5000)
    arrays = {"multiplier": 21845, "shift": 20, "bias": 17, "low": -200, "high": 200}
    node = Node("requantize", (0,), {}, {k: np.asarray(v, np.int64) for k, v in arrays.items()}, 0)
    floats = jax.jit(lambda x: rounded._requantize(node, x))(jnp.asarray(value, jnp.float32))
    # Python's own round on exact fractions
    wanted = [max(-200, min(200, round(fractions.Fraction(int(v) * 21845 + 17, 2**20)))) for v in value]
    assert np.asarray(floats).astype(int).tolist() == wanted
