"""Quantizers by name: the published baselines beside `cooptim.relax.bitwidth.quantize`, each with its own gradients.

A quantizer returns words and their zeros: pairs (share, cut) that say which share of the words is zero where the
magnitude is at most `cut`; -1 where no word is zero. From 32 bits on, x itself is the word.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.relax.bitwidth import OFF_BITS, SIGN_BITS, quantize
from cooptim.relax.rounding import replace_gradient, round_ste

TWN_SHARE = 0.7  # threshold over the mean magnitude of weights


class Words(NamedTuple):
    """Words of a tensor, and what of it is zero: each share of the words is zero up to its cut."""

    values: Any
    zeros: tuple[tuple[Any, Any], ...]


class Operand(NamedTuple):
    """What a quantizer may use beside the tensor.

    Attributes:
      bits, step, range_: of the design, scalars. signed: whether the data goes below zero.
      words: of the tensor of one image (weights: of the tensor). reduced: axes of one output channel of the weights.
    """

    bits: Any
    step: Any
    range_: Any
    signed: bool
    words: int
    reduced: tuple[int, ...] | None = None


Quantizer = Callable[[Any, Operand], Words]


def largest_level(bits: Float[ArrayLike, "..."], signed: bool) -> Float[Array, "..."]:
    """Steps from zero to the largest value of so many bits; finite from 32 bits on, where nothing is quantized."""
    return 2.0 ** (jnp.minimum(jnp.asarray(bits), OFF_BITS - 1.0) - (1.0 if signed else 0.0)) - 1.0


def lsq(x: Float[Array, "*n"], o: Operand) -> Words:
    """Learned step size: clip(x/s, -Q_N, Q_P) rounded, times s, the width fixed.

    Slopes: in s that of the formula with a straight-through rounding, (round(v) - v) inside and -Q_N or Q_P outside,
    times 1/sqrt(words * Q_P); in x 1 inside and 0 outside. Q_N = 2^(b-1), Q_P = 2^(b-1) - 1; unsigned 0 and 2^b - 1.

    Source: Esser et al., "Learned Step Size Quantization" (ICLR 2020), eqs. 1 to 3 and section 2.2.
    """
    top = jax.lax.stop_gradient(largest_level(o.bits, o.signed))
    scale = 1.0 / jnp.sqrt(o.words * top)
    step = replace_gradient(o.step, o.step * scale)
    level = jnp.clip(x / step, -(top + 1.0) if o.signed else jnp.zeros_like(top), top)
    return Words(round_ste(level) * step, ((1.0, o.step / 2),))


def pact(x: Float[Array, "*n"], o: Operand) -> Words:
    """Inputs clipped at a learned range, in levels of range / (2^b - 1).

    Slopes: in the range 1 where x is at or beyond it (-1 at its negative end, for signed data, which the paper leaves
    out), else 0; in x 1 inside. The paper's penalty on the range is the loss's matter.

    Source: Choi et al., "PACT: Parameterized Clipping Activation for Quantized Neural Networks" (2018), eqs. 1 to 3.
    """
    step = _held_step(o)
    low = -o.range_ if o.signed else jnp.zeros_like(o.range_)
    inside = jnp.where(x >= o.range_, o.range_, jnp.where(x <= low, low, x))
    return Words(replace_gradient(jnp.round(inside / step) * step, inside), ((1.0, step / 2),))


def dorefa_weights(w: Float[Array, "*n"], o: Operand) -> Words:
    """range * (2 q(tanh(w) / (2 max|tanh(w)|) + 1/2) - 1) with 2^b levels, of which none is zero.

    The slope is that of the formula with q's identity; none in the range, which is 1 in the paper and here the
    magnitude of a trained network. One bit is sign(w) times the mean magnitude, with the identity's slope.

    Source: Zhou et al., "DoReFa-Net" (2016), eqs. 5, 6 and 9.
    """
    top = jax.lax.stop_gradient(largest_level(o.bits, False))
    t = jnp.tanh(w)
    t = t / (2.0 * jnp.maximum(jnp.max(jnp.abs(t)), jnp.finfo(t.dtype).tiny)) + 0.5
    many = jax.lax.stop_gradient(o.range_) * (2.0 * replace_gradient(jnp.round(t * top) / top, t) - 1.0)
    one = replace_gradient(_signs(w) * jnp.mean(jnp.abs(w)), w)
    return Words(jnp.where(o.bits < SIGN_BITS, one, many), ((1.0, -1.0),))


def dorefa_inputs(x: Float[Array, "*n"], o: Operand) -> Words:
    """Inputs clipped to [0, range] (signed: [-range, range]) in 2^b levels; the slope in x is 1 inside, none elsewhere.

    The range is 1 in the paper.

    Source: Zhou et al., "DoReFa-Net" (2016), eqs. 5 and 11.
    """
    held = jax.lax.stop_gradient(o.range_)
    step = jax.lax.stop_gradient(_held_step(o))
    inside = jnp.clip(x, -held if o.signed else jnp.zeros_like(held), held)
    return Words(round_ste(inside / step) * step, ((1.0, step / 2),))


def sign_weights(w: Float[Array, "*n"], o: Operand) -> Words:
    """sign(w) times the mean magnitude alpha of its output channel.

    Slope in w: 1/n + alpha where |w| <= 1 and 1/n beyond, n weights a channel.

    Source: Rastegari et al., "XNOR-Net" (ECCV 2016), eq. 6 and the gradient of section 3.1.
    """
    assert o.reduced is not None
    alpha = jnp.mean(jnp.abs(w), axis=o.reduced, keepdims=True)
    count = w.size // alpha.size
    slope = jax.lax.stop_gradient(1.0 / count + alpha * (jnp.abs(w) <= 1.0))
    return Words(replace_gradient(_signs(w) * alpha, slope * w), ((1.0, -1.0),))


def sign_inputs(x: Float[Array, "*n"], o: Operand) -> Words:
    """Signed data: range or -range by the sign; unsigned: range above range/2, else 0.

    Slope in x 1 within the range and 0 beyond (hard tanh), in the range the sign beyond; a range of 1 that is held is
    the paper's.

    Source: Courbariaux et al., "Binarized Neural Networks" (2016), eqs. 1 and 4.
    """
    low = -o.range_ if o.signed else jnp.zeros_like(o.range_)
    inside = jnp.where(x > o.range_, o.range_, jnp.where(x < low, low, x))
    if o.signed:
        return Words(replace_gradient(_signs(x) * o.range_, inside), ((1.0, -1.0),))
    return Words(replace_gradient(jnp.where(x > o.range_ / 2, o.range_, 0.0), inside), ((1.0, o.range_ / 2),))


def ternary(w: Float[Array, "*n"], o: Operand) -> Words:
    """alpha * sign(w) where |w| > delta = 0.7 mean|w|, else 0; alpha is the mean magnitude of those that are left.

    The slope in w is 1 everywhere. `reduced` are the axes over which the means go; None takes the whole tensor.

    Source: Li et al., "Ternary Weight Networks" (2016), eqs. 5 and 6.
    """
    magnitude = jnp.abs(w)
    delta = TWN_SHARE * jnp.mean(magnitude, axis=o.reduced, keepdims=True)
    left = magnitude > delta
    count = jnp.maximum(jnp.sum(left, axis=o.reduced, keepdims=True), 1)
    alpha = jnp.sum(jnp.where(left, magnitude, 0.0), axis=o.reduced, keepdims=True) / count
    return Words(replace_gradient(jnp.where(left, alpha * _signs(w), 0.0), w), ((1.0, jax.lax.stop_gradient(delta)),))


def blend(x: Float[Array, "*n"], o: Operand) -> Words:
    """(n + 1 - b) q_n(x) + (b - n) q_(n+1)(x), n = floor(b): the two neighbouring widths over one range.

    The slope in the width is exact, q_(n+1)(x) - q_n(x); a whole width is one quantizer. Widths from 2 bits on when
    signed, from 1 otherwise.

    Source: Yang and Jin, "FracBits: Mixed Precision Quantization via Fractional Bit-Widths" (AAAI 2021), eq. 3.
    """
    (low, high), zeros = neighbours(x, o)
    upper = zeros[1][0]
    return Words((1.0 - upper) * low + upper * high, zeros)


def neighbours(x: Float[Array, "*n"], o: Operand) -> tuple[tuple[Any, Any], tuple[tuple[Any, Any], ...]]:
    """((q_n(x), q_(n+1)(x)), zeros) of a blend: each width's share and the magnitude up to which it is zero."""
    bits = jnp.minimum(o.bits, OFF_BITS - 2.0)
    low = jnp.floor(jax.lax.stop_gradient(bits))
    steps = [o.range_ / largest_level(width, o.signed) for width in (low, low + 1.0)]
    q_low, q_high = (
        quantize(x, width, step, o.range_, o.signed) for width, step in zip((low, low + 1.0), steps, strict=True)
    )
    upper = bits - low
    return (q_low, q_high), ((1.0 - upper, steps[0] / 2), (upper, steps[1] / 2))


def _held_step(o: Operand) -> Any:
    """Step at which the width's levels fill the range."""
    return o.range_ / jax.lax.stop_gradient(largest_level(o.bits, o.signed))


def _signs(x: Any) -> Any:
    return jnp.where(x < 0, -1.0, 1.0).astype(x.dtype)


# `step_range` is the default and stands in `cooptim.relax.bitwidth`.
WEIGHT_QUANTIZERS: Mapping[str, Quantizer] = {
    "lsq": lsq, "dorefa": dorefa_weights, "sign": sign_weights, "ternary": ternary, "blend": blend,
}  # fmt: skip
INPUT_QUANTIZERS: Mapping[str, Quantizer] = {
    "lsq": lsq, "pact": pact, "dorefa": dorefa_inputs, "sign": sign_inputs, "blend": blend,
}  # fmt: skip
