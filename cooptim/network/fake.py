"""The quantizers of `cooptim.relax` on whole tensors, with derivatives written out so that training stays cheap.

Values are those of `cooptim.relax`, and so are the slopes (tested), word by word in closed form. The slopes of a tensor
in its scalar knobs are summed as one matrix product. Plain differentiation compiles 1.5 times as long, costs three
times the reductions on a CPU and divides zero by zero at threshold 0. Just at the end of a range the slope in x is 1,
not 1/2.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from cooptim.relax import bitwidth, mask, quantizers

Words = Callable[..., Any]  # (x, bits, step, range[, threshold]) -> x in that many bits; no slope in bits


def _wide(x: Any) -> Any:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _value(signed: bool, pruned: bool, x: Any, bits: Any, step: Any, range_: Any, *threshold: Any) -> Any:
    if not pruned:
        return bitwidth.quantize(_wide(x), bits, step, range_, signed).astype(x.dtype)
    quantized = bitwidth.quantize(mask.prune(_wide(x), threshold[0]), bits, step, range_, signed)
    return jnp.where((bits >= bitwidth.OFF_BITS) & (threshold[0] <= 0), x, quantized.astype(x.dtype))


def _slopes(
    signed: bool, pruned: bool, x: Any, bits: Any, step: Any, range_: Any, *threshold: Any
) -> tuple[Any, list[Any]]:
    """Where the slope in x is 1 (else it is 0), and each word's slopes in step, range and threshold."""
    x = _wide(x)
    learned = bits < bitwidth.OFF_BITS
    w = jnp.where(jnp.abs(x) > threshold[0], x, 0.0) if pruned else x
    low = -range_ if signed else jnp.zeros_like(range_)
    level = jnp.clip(w, low, range_) / step
    inside = ((w >= low) & (w <= range_)) | ~learned
    rounding = jnp.round(level) - level
    beyond = jnp.sign(w) * (jnp.abs(w) > range_) if signed else jnp.where(w > range_, 1.0, 0.0)
    if signed:  # one bit is the sign, of the range's magnitude
        two = bits < bitwidth.SIGN_BITS
        inside = inside | two
        rounding = jnp.where(two, 0.0, rounding)
        beyond = jnp.where(two, jnp.where(w < 0, -1.0, 1.0), beyond)
    slopes = [jnp.where(learned, rounding, 0.0), jnp.where(learned, beyond, 0.0)]
    if pruned:  # w times the ramp |w|/(2 threshold), which ends at 2 threshold
        cut = jnp.where(threshold[0] > 0, threshold[0], 1.0)
        ramp = inside & (threshold[0] > 0) & (jnp.abs(x) < 2 * cut)
        slopes.append(jnp.where(ramp, -x * jnp.abs(x) / (2 * cut**2), 0.0))
    return inside, slopes


def _words(signed: bool, pruned: bool) -> Words:
    @jax.custom_jvp
    def words(*operands: Any) -> Any:
        return _value(signed, pruned, *operands)

    @words.defjvp
    def moved(operands: Any, tangents: Any) -> tuple[Any, Any]:
        dx, _, *dknobs = tangents
        inside, slopes = _slopes(signed, pruned, *operands)
        return words(*operands), jnp.where(inside, dx, 0.0) + _by_knobs(slopes, dknobs, dx)

    return words


def _by_knobs(slopes: list[Any], dknobs: list[Any], dx: Any) -> Any:
    """How far a tensor moves with its scalar knobs, as one matrix product."""
    table = jnp.stack([slope.ravel() for slope in slopes])
    scales = jnp.stack(dknobs).astype(table.dtype)
    moved = jnp.matmul(scales, table, precision=jax.lax.Precision.HIGHEST)
    return moved.reshape(dx.shape).astype(dx.dtype)


signed_words = _words(signed=True, pruned=False)  # (x, bits, step, range)
unsigned_words = _words(signed=False, pruned=False)
pruned_words = _words(signed=True, pruned=True)  # (w, bits, step, range, threshold); w itself at 32 bits, threshold 0


def _blended(signed: bool) -> Words:
    @jax.custom_jvp
    def words(x: Any, bits: Any, range_: Any) -> Any:
        return quantizers.blend(_wide(x), _plain(bits, range_, signed)).values.astype(x.dtype)

    @words.defjvp
    def moved(operands: Any, tangents: Any) -> tuple[Any, Any]:
        (x, bits, range_), (dx, *dknobs) = operands, tangents
        wide, low = _wide(x), -range_ if signed else jnp.zeros_like(range_)
        (q_low, q_high), ((lower, _), (upper, _)) = quantizers.neighbours(wide, _plain(bits, range_, signed))
        blended = lower * q_low + upper * q_high
        inside = (wide >= low) & (wide <= range_)
        slopes = [
            jnp.where(bits < bitwidth.OFF_BITS - 2.0, q_high - q_low, 0.0),
            (blended - jnp.where(inside, wide, 0.0)) / range_,
        ]
        return words(*operands), jnp.where(inside, dx, 0.0) + _by_knobs(slopes, dknobs, dx)

    return words


def _plain(bits: Any, range_: Any, signed: bool) -> quantizers.Operand:
    return quantizers.Operand(bits, range_, range_, signed, 1)


_signed_blend, _unsigned_blend = _blended(True), _blended(False)


def blend(x: Any, o: quantizers.Operand) -> quantizers.Words:
    """`quantizers.blend`."""
    _, zeros = quantizers.neighbours(jnp.zeros((), _wide(x).dtype), o)
    return quantizers.Words((_signed_blend if o.signed else _unsigned_blend)(x, o.bits, o.range_), zeros)


@jax.custom_jvp
def nonzero_share(x: Any, cut: Any) -> Any:
    """`mask.density`: share of words of magnitude above `cut`, counted exactly, with the gradient of its ramp."""
    wide = _wide(x)
    return jnp.mean(jnp.abs(wide) > cut, dtype=wide.dtype)


@nonzero_share.defjvp
def _nonzero_share_jvp(operands: Any, tangents: Any) -> tuple[Any, Any]:
    (x, cut), (dx, dcut) = operands, tangents
    share = nonzero_share(x, cut)
    wide, smooth = _wide(x), cut > 0
    safe = jnp.where(smooth, cut, 1.0)
    ramp = smooth & (jnp.abs(wide) < 2 * safe)
    in_x = jnp.vdot(jnp.where(ramp, jnp.sign(wide), 0.0), _wide(dx)) / (2 * safe * wide.size)
    in_cut = -jnp.mean(jnp.where(ramp, jnp.abs(wide), 0.0)) / (2 * safe**2)
    return share, (in_x + in_cut * dcut).astype(share.dtype)


def fixed_input_product(mac: Callable[[Any, Any], Any], signed: bool) -> Callable[..., Any]:
    """(w, x, bits, step, range) -> mac(w, x in that many bits), cheap as long as x itself does not move.

    mac is linear in each operand, so the output moves by mac(dstep * w, dx/dstep): the backward pass of a first layer
    then needs its weight gradient once more instead of the gradient of its image, which takes several times as long.
    """
    words = signed_words if signed else unsigned_words

    @jax.custom_jvp
    def product(w: Any, x: Any, bits: Any, step: Any, range_: Any) -> Any:
        return mac(w, words(x, bits, step, range_))

    def moved(operands: Any, tangents: Any) -> tuple[Any, Any]:
        w, x, *rest = operands
        dw, dx, _, *dknobs = tangents
        quantized = words(x, *rest)
        out = mac(w, quantized)
        parts = [] if _still(dw) else [mac(dw, quantized)]
        if _still(dx):
            _, slopes = _slopes(signed, False, x, *rest)
            moving = [(d, slope) for d, slope in zip(dknobs, slopes, strict=True) if not _still(d)]
            parts += [mac((d * w).astype(w.dtype), slope.astype(x.dtype)) for d, slope in moving]
        else:
            full = [jnp.zeros_like(p) if _still(t) else t for p, t in zip(operands[1:], tangents[1:], strict=True)]
            parts.append(mac(w, jax.jvp(words, tuple(operands[1:]), tuple(full))[1]))
        return out, sum(parts, jnp.zeros_like(out))

    product.defjvp(moved, symbolic_zeros=True)
    return product


def _still(tangent: Any) -> bool:
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)
