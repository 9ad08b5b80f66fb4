"""Wrong bits and late operations: words and sums as faulty hardware gives them, differentiable in the rate of errors.

Random is only what the key says: the same key gives the same faults, and a lower rate a subset of them.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Int, Shaped, UInt32

from cooptim.relax.bitwidth import OFF_BITS
from cooptim.relax.rounding import replace_gradient

_LEAST = 1e-30  # a rate of 0 counts as this, so that its slope is finite
_DRAWS = 2.0**32  # a cell's fate is one of so many numbers: rates are exact to 2.4e-10
_GOLDEN = np.uint32(0x9E3779B9)  # 2^32 over the golden ratio, odd: its multiples meet every number once


def misread(
    x: Float[Array, "*n"],
    bits: Float[Array, "..."],
    step: Float[Array, "..."],
    range_: Float[Array, "..."],
    rate: Float[Array, "..."],
    key: Shaped[Array, ""],
    signed: bool,
) -> Float[Array, "*n"]:
    """Quantized words as they come back from memory cells of which each gives the wrong bit with probability `rate`.

    A word is the whole number x/step, in two's complement when signed; one signed bit is a sign, of magnitude range_.
    A faulty cell is stuck, at 0 or at 1 alike: of two faulty ones, one holds the right bit. From 32 bits on, x itself
    comes back.

    Slopes: 1 in x, the change in steps (ranges) in step (range_), none in bits. In the rate, where m ~ Bernoulli(p)
    says whether a bit that adds d to the word is wrong, E f(x + m d) moves by f(x + d) - f(x). Taken for dm/dp is
    (m/p + (1 - m)/(1 - p))/2, so the drawn slope of f is met as often at x as at x + d and the expectation is
    d (f'(x) + f'(x + d))/2: the trapezoid rule, exact for an f that is quadratic in the words (so for any number of
    words and bits, whose faults are independent), off by d^3 f'''/12 otherwise. The sum over bits has a closed form:
    all d of a word add up to its complement less the word. Its variance stays below d^2 f'^2/(4p), and a rate that
    falls by a factor with the voltage turns that into one that falls with p.

    Args:
      x: multiples of step. bits: whole, at most 24, or 32 and more. rate: in [0, 1/2). bits, rate: scalars;
        step, range_: those, or anything that broadcasts against x.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    p = jnp.clip(jax.lax.stop_gradient(jnp.asarray(rate, wide.dtype)), _LEAST, 0.5 - 2.0**-20)
    width = jnp.where(bits >= OFF_BITS, 0, jnp.round(bits)).astype(jnp.int32)
    one = jnp.ones((), jnp.int32)
    sign_bit = jnp.left_shift(one, jnp.maximum(width, 1) - 1)
    ones = 2 * sign_bit - 1
    level = jax.lax.stop_gradient(jnp.round(wide / step)).astype(jnp.int32)
    level = jnp.clip(level, -sign_bit, sign_bit - 1) if signed else jnp.clip(level, 0, ones)
    is_sign = (width == 1) if signed else jnp.zeros((), bool)
    stored = jnp.where(is_sign, (wide < 0).astype(jnp.int32), level)
    at_1, at_0 = stuck_cells(key, x.shape, width, p)
    read = ((stored | at_1) & ~at_0) & ones
    if signed:
        read = jnp.where(~is_sign & (read & sign_bit > 0), read - ones - 1, read)
    change = jnp.where(is_sign, 2 * (stored - read), read - stored)
    all_wrong = jnp.where(is_sign, 4 * stored - 2, -1 - 2 * stored if signed else ones - 2 * stored)
    change, all_wrong = (jnp.where(width > 0, n, 0).astype(wide.dtype) for n in (change, all_wrong))
    slope = 0.5 * (change / p + (all_wrong - change) / (1.0 - p))
    moved = replace_gradient(change, rate * slope)
    return (wide + moved * jnp.where(is_sign, range_, step)).astype(x.dtype)


def stuck_cells(
    key: Shaped[Array, ""], shape: tuple[int, ...], width: Int[Array, ""], rate: Float[Array, ""]
) -> tuple[Int[Array, "*n"], Int[Array, "*n"]]:
    """(cells stuck at 1, cells stuck at 0) of words of `width` bits, as bit masks: each with probability `rate`.

    One random number a word, and one mixed from it for each of its cells.
    """
    threshold = (rate * _DRAWS).astype(jnp.uint32)
    word = random_words(key, shape)

    def plane(b, masks):  # type: ignore[no-untyped-def]
        fate = _mixed(word + (b.astype(jnp.uint32) + 1) * _GOLDEN)
        bit = jnp.left_shift(jnp.ones((), jnp.int32), b)
        up = fate < threshold
        down = ~up & (fate < 2 * threshold)
        return masks[0] | jnp.where(up, bit, 0), masks[1] | jnp.where(down, bit, 0)

    none = jnp.zeros(shape, jnp.int32)
    return jax.lax.fori_loop(0, width, plane, (none, none))


def random_words(key: Shaped[Array, ""], shape: tuple[int, ...]) -> UInt32[Array, "*n"]:
    """32 random bits an element, the same for the same key.

    The element's number, mixed twice with two words of the key between: a thirtieth of the time of `jax.random.bits` on
    a CPU, where drawing took longer than the network. Good enough for which cells fail, not for secrets.
    """
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    count = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return _mixed(_mixed(count * _GOLDEN + first) + second)


def near_normal(key: Shaped[Array, ""], shape: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "*n"]:
    """Numbers of mean 0 and variance 1, within 0.003 of the normal distribution function and 5.8 of 0.

    The set bits of a word are a binomial of 32, spread over the unit intervals around its values.
    """
    word, wide = random_words(key, shape), jnp.promote_types(dtype, jnp.float32)
    inside = (_mixed(word + _GOLDEN) >> 8).astype(wide) * 2.0**-24 - 0.5
    found = (jax.lax.population_count(word).astype(wide) - 16.0 + inside) / math.sqrt(8.0 + 1.0 / 12.0)
    return found.astype(dtype)


def _mixed(x: Any) -> Any:
    """32 bits of which each depends on all of x.

    Source: the finalizer of MurmurHash3 (Appleby), behind a step of the golden ratio as in SplitMix.
    """
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def late_sum(
    total: Float[Array, "*n"], squares: Float[Array, "*n"], rate: Float[ArrayLike, ""], key: Shaped[Array, ""]
) -> Float[Array, "*n"]:
    """Sums of products of which each comes too late, and is left out, with probability `rate`.

    A late multiply-accumulate leaves the accumulator at its previous value. What is drawn has the mean and the variance
    of the sum that is left, (1 - p) total and p (1 - p) squares, and is near normal, the limit of many products
    (`near_normal`). Slopes are those of the drawn value.

    Args:
      squares: sum of the squares of the products. rate: in [0, 1].

    Source: a binomial thinning of independent terms. That a late operation is skipped is an assumption, as in designs
    that drop what their detecting flip-flops find late (ThunderVolt, DAC 2018; recalled, not verified).
    """
    p = jnp.asarray(rate, total.dtype)
    variance = p * (1.0 - p)  # of one product, over its square
    some = variance > 0  # the root has no slope at 0
    spread = jnp.where(some, jnp.sqrt(jnp.where(some, variance, 1.0)), 0.0)
    normal = jnp.where(squares > 0, spread * near_normal(key, total.shape, total.dtype), 0.0)
    least = max(_LEAST, float(jnp.finfo(total.dtype).tiny))  # so that the slope at 0 is finite in float16, too
    return (1.0 - p) * total + jnp.sqrt(squares + least) * normal
