"""Fixed-point requantization: integers in, integers out, ties to even.

A real factor becomes an integer multiplier and a right shift, and an offset an integer added before the shift, as in
Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (CVPR 2018,
section 2.2). Adding after the multiplication instead of before it keeps a channel whose factor is zero or tiny, as a
batch normalization may have, without an offset that no accumulator holds.
"""

import numpy as np

MAX_SHIFT = 40  # with it, multiplier and accumulator, the sum before the shift stays within 62 bits


def rounded_shift(value: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """value / 2**shift rounded to the nearest integer, ties to even; int64, shift >= 0."""
    floor = value >> shift
    rest = value - (floor << shift)
    half = (np.int64(1) << shift) >> 1
    up = (rest > half) | ((rest == half) & (floor & 1 == 1))
    return floor + (up & (shift > 0))


def requantized(
    value: np.ndarray,
    multiplier: np.ndarray,
    shift: np.ndarray,
    bias: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> np.ndarray:
    """clip((value * multiplier + bias) / 2**shift, low, high), rounded with ties to even; arrays broadcast."""
    return np.clip(rounded_shift(value.astype(np.int64) * multiplier + bias, shift), low, high)


def fixed_point(factor: np.ndarray, offset: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(multiplier, shift, bias) with multiplier / 2**shift near `factor` and bias / 2**shift near `offset`.

    The multiplier takes all of its `bits` (magnitude below 2**bits) unless the shift would pass MAX_SHIFT or the bias
    40 bits. Raises ValueError for a factor that needs a left shift, or for numbers that are not finite.
    """
    factor, offset = np.broadcast_arrays(np.asarray(factor, np.float64), np.asarray(offset, np.float64))
    if not (np.isfinite(factor).all() and np.isfinite(offset).all()):
        raise ValueError("a factor or an offset is not finite; check the weights and the statistics of normalizations")
    exponent = np.frexp(factor)[1].astype(np.int64)
    # a mantissa that rounds up to 2**bits needs one bit less
    exponent += np.rint(np.ldexp(np.abs(factor), bits - exponent)) >= 2.0**bits
    room = 40 - np.maximum(np.frexp(offset)[1].astype(np.int64), 0)
    shift = np.minimum(np.minimum(bits - exponent, room), MAX_SHIFT)
    if (shift < 0).any():
        raise ValueError(f"the factor {np.abs(factor).max():g} has no {bits}-bit multiplier with a right shift")
    multiplier = np.rint(np.ldexp(factor, shift)).astype(np.int64)
    return multiplier, shift, np.rint(np.ldexp(offset, shift)).astype(np.int64)
