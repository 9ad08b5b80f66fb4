"""Bit width from step and range, and the quantizer that goes with it.

Source: parametrization U3 of Uhlich et al., "Mixed Precision DNNs: All you need is a good parametrization" (ICLR 2020):
learn step d and range m, the width follows, and the gradients in d and m are bounded and decoupled.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.relax.rounding import ceil_ste, replace_gradient, round_ste

OFF_BITS = 32.0  # a width of 32 or more leaves the tensor as it is, to the last bit
SIGN_BITS = 1.5  # a signed width below this keeps the sign alone


def bits_of(
    step: Float[ArrayLike, "*#n"], range_: Float[ArrayLike, "*#n"], signed: Float[ArrayLike, "*#n"]
) -> Float[Array, "..."]:
    """Continuous width [bit] that holds the levels -range..range (or 0..range) at this step; `signed` is 1 or 0."""
    return jnp.log2(jnp.asarray(range_) / step + 1.0) + signed


def integer_bits(
    step: Float[ArrayLike, "*#n"], range_: Float[ArrayLike, "*#n"], signed: Float[ArrayLike, "*#n"]
) -> Float[Array, "..."]:
    """Width in whole bits, rounded up with a straight-through gradient."""
    return ceil_ste(bits_of(step, range_, signed))


def range_of(
    step: Float[ArrayLike, "*#n"], bits: Float[ArrayLike, "*#n"], signed: Float[ArrayLike, "*#n"]
) -> Float[Array, "..."]:
    """Largest magnitude that `bits` hold at this step: the inverse of `bits_of`."""
    return jnp.asarray(step) * (2.0 ** (jnp.asarray(bits) - signed) - 1.0)


def quantize(
    x: Float[Array, "*n"],
    bits: Float[Array, "..."],
    step: Float[Array, "..."],
    range_: Float[Array, "..."],
    signed: bool,
) -> Float[Array, "*n"]:
    """x rounded to multiples of `step` (ties to even) within [-range_, range_], or [0, range_] when unsigned.

    Straight-through gradient in x inside the range and none outside; in `step` it is (q - x)/step inside, in `range_`
    the sign outside. From 32 bits on, x itself comes back. One bit of a signed x is range_, or -range_ below zero, with
    the identity's slope in x everywhere and the sign in `range_` (XNOR-Net, Rastegari et al., ECCV 2016).

    Args:
      x: tensor; bits, step, range_: scalars or anything that broadcasts against it, step > 0.
    """
    inside = jnp.clip(x, -range_ if signed else jnp.zeros_like(range_), range_)
    rounded = round_ste(inside / step) * step
    if signed:
        sign = jnp.where(x < 0, -1.0, 1.0).astype(x.dtype)
        rounded = jnp.where(bits < SIGN_BITS, replace_gradient(range_ * sign, x + range_ * sign), rounded)
    return jnp.where(bits >= OFF_BITS, x, rounded)
