"""Widths, ranges and masks of a network's operands: initial knobs, knobs to what is kept, knobs within bounds."""

import dataclasses
from typing import TypeVar

import chex
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.design.design import Operands
from cooptim.design.knobs import OperandKnobs, Phase, free_phase
from cooptim.relax.bitwidth import bits_of, integer_bits, range_of
from cooptim.relax.codebook import ENTRY_BITS, entry_unit
from cooptim.relax.method import Method
from cooptim.relax.rounding import clip_ste

MIN_BITS = 2.0  # ternary weights, four input levels; one bit of weights, their sign, is for datapaths of nothing else
_TERNARY_SPAN = 8.0  # octaves below the range in which a ternary layer's threshold may lie: half a step of 8 bits
Widest = float | tuple[float, float]  # of both operands, or of weights and inputs [bit]
AnyKnobs = TypeVar("AnyKnobs", bound=OperandKnobs)


def init_operands(
    weight_max: Float[ArrayLike, "layer"],
    input_max: Float[ArrayLike, "layer"],
    input_signed: tuple[bool, ...],
    weight_bits: Float[ArrayLike, "..."] = 8.0,
    input_bits: Float[ArrayLike, "..."] = 8.0,
    weight_scale: tuple[Float[ArrayLike, "_"], ...] | None = None,
) -> OperandKnobs:
    """Knobs at the given widths, ranges at the given magnitudes.

    Args:
      weight_max, input_max: largest magnitudes (or the ranges wanted), > 0.
      input_signed: whether each layer's input goes below zero.
      weight_scale: factors of the output channels, > 0, size 0 for layers without; None where no layer has them.

    The pruning threshold starts at half a step, where it prunes just what rounds to zero anyway.
    """
    layers = len(input_signed)
    chex.assert_shape([weight_max, input_max], (layers,))
    dtype = jnp.asarray(weight_max).dtype
    tiny = jnp.finfo(dtype).tiny ** 0.5
    weight_range, input_range = jnp.maximum(weight_max, tiny), jnp.maximum(input_max, tiny)
    # Half a step below the exact width, so that the first moves of step and range do not flip it.
    start_bits = jnp.maximum(jnp.asarray(weight_bits, dtype), MIN_BITS)
    levels_w = range_of(jnp.ones(layers, dtype), start_bits - 0.01, 1.0)
    levels_i = range_of(jnp.ones(layers, dtype), jnp.asarray(input_bits, dtype) - 0.01, _signs(input_signed, dtype))
    return OperandKnobs(
        weight_log2_step=jnp.log2(weight_range / levels_w),
        weight_log2_range=jnp.log2(weight_range),
        log2_threshold=jnp.log2(weight_range / levels_w) - 1.0,
        input_log2_step=jnp.log2(input_range / levels_i),
        input_log2_range=jnp.log2(input_range),
        weight_log2_scale=None
        if weight_scale is None
        else tuple(jnp.log2(jnp.asarray(s, dtype)) for s in weight_scale),
    )


def decoded_operands(
    knobs: OperandKnobs,
    input_signed: tuple[bool, ...],
    most_bits: Widest = 8.0,
    phase: Phase | None = None,
    methods: tuple[Method, ...] = (),
    least_bits: tuple[float, float] = (MIN_BITS, MIN_BITS),
    entry_bits: int = ENTRY_BITS,
) -> Operands:
    """What these knobs keep of weights and inputs; differentiable in every leaf.

    Forward, widths are whole bits from MIN_BITS to `most_bits` (straight-through), and a range is what its width holds;
    a blend's are continuous until they are frozen. Weights of one bit, and words without a zero, are not pruned.

    Args:
      most_bits: of both operands, or of (weights, inputs).
      phase: traced switches `prune` and `frozen`; `quantize` is the caller's. None learns everything.
      methods: one a layer; () is the default for all.
      least_bits: of weights and inputs that keep their sign alone.
      entry_bits: of the values in a table of weights; its largest magnitude and what one unit of it is worth are the
        layer's range and step.
    """
    phase = free_phase(len(input_signed)) if phase is None else phase
    most_w, most_i = _both(most_bits)
    signed = _signs(input_signed, knobs.input_log2_step.dtype)
    w_bits, w_step, w_range = _width(
        knobs.weight_log2_step, knobs.weight_log2_range, 1.0, most_w, phase.weight_bits, phase.frozen,
        [m.weights == "blend" for m in methods],
    )  # fmt: skip
    i_bits, i_step, i_range = _width(
        knobs.input_log2_step, knobs.input_log2_range, signed, most_i, phase.input_bits, phase.frozen,
        [m.inputs == "blend" for m in methods],
    )  # fmt: skip
    w_bits, w_step, w_range = _fixed(w_bits, w_step, w_range, methods, 0, least_bits, most_w)
    i_bits, i_step, i_range = _fixed(i_bits, i_step, i_range, methods, 1, least_bits, most_i)
    w_step, w_range = _entry_units(w_step, w_range, knobs.codebook, entry_bits)
    cut = jnp.where((phase.prune > 0.5) & (most_w >= MIN_BITS), 2.0**knobs.log2_threshold, 0.0)
    if not all(m.has_zero for m in methods):
        cut = jnp.where(np.asarray([m.has_zero for m in methods]), cut, 0.0)
    return Operands(
        input_signed=input_signed,
        weight_bits=w_bits,
        weight_step=w_step,
        weight_range=w_range,
        threshold=cut,
        input_bits=i_bits,
        input_step=i_step,
        input_range=i_range,
        methods=methods,
        weight_scale=None if knobs.weight_log2_scale is None else tuple(2.0**s for s in knobs.weight_log2_scale),
        codebook=knobs.codebook,
    )


def projected_operands(
    knobs: AnyKnobs, input_signed: tuple[bool, ...], most_bits: Widest = 8.0, methods: tuple[Method, ...] = ()
) -> AnyKnobs:
    """Knobs moved back to where the straight-through bounds do not act, so that none runs away.

    The weight step of a layer with a table follows from its values; the knob bounds the threshold alone, and stays.
    """
    signed = _signs(input_signed, knobs.input_log2_step.dtype)

    most_w, most_i = _both(most_bits)

    def steps(log2_step, log2_range, sign, most):  # type: ignore[no-untyped-def]
        if most < MIN_BITS:
            return log2_range
        finest = jnp.log2(range_of(jnp.ones_like(log2_step), jnp.asarray(most), sign))
        coarsest = jnp.log2(range_of(jnp.ones_like(log2_step), jnp.asarray(MIN_BITS), sign))
        return jnp.clip(log2_step, log2_range - finest, log2_range - coarsest)

    weight_log2_step = steps(knobs.weight_log2_step, knobs.weight_log2_range, 1.0, most_w)
    if any(labels := [m.label_bits is not None for m in methods]):
        weight_log2_step = jnp.where(np.asarray(labels), knobs.weight_log2_step, weight_log2_step)
    # Below half a step a threshold prunes nothing that rounding spares, and would get no gradient.
    least_threshold = weight_log2_step - 1.0
    if any(own := [m.weights == "ternary" for m in methods]):
        # Its step is its range, and what it spares follows from its weights.
        least_threshold = jnp.where(np.asarray(own), knobs.weight_log2_range - _TERNARY_SPAN, least_threshold)
    return dataclasses.replace(
        knobs,
        weight_log2_step=weight_log2_step,
        input_log2_step=steps(knobs.input_log2_step, knobs.input_log2_range, signed, most_i),
        log2_threshold=jnp.clip(knobs.log2_threshold, least_threshold, knobs.weight_log2_range),
    )


def held_ranges(knobs: AnyKnobs, phase: Phase, input_signed: tuple[bool, ...], methods: tuple[Method, ...]) -> AnyKnobs:
    """Knobs whose blends have, at the frozen widths, the ranges that they had: a hardened blend is not another clip."""
    signed = _signs(input_signed, knobs.input_log2_step.dtype)

    def step(log2_step, log2_range, bits, sign, blends):  # type: ignore[no-untyped-def]
        if not any(blends):
            return log2_step
        fitting = log2_range - jnp.log2(range_of(jnp.ones_like(log2_step), bits, sign))
        return jnp.where(np.asarray(blends), fitting, log2_step)

    return dataclasses.replace(
        knobs,
        weight_log2_step=step(
            knobs.weight_log2_step, knobs.weight_log2_range, phase.weight_bits, 1.0,
            [m.weights == "blend" for m in methods],
        ),
        input_log2_step=step(
            knobs.input_log2_step, knobs.input_log2_range, phase.input_bits, signed,
            [m.inputs == "blend" for m in methods],
        ),
    )  # fmt: skip


def _both(most_bits: Widest) -> tuple[float, float]:
    return most_bits if isinstance(most_bits, tuple) else (most_bits, most_bits)


def _signs(input_signed: tuple[bool, ...], dtype: jnp.dtype) -> Float[Array, "layer"]:
    return jnp.asarray(np.asarray(input_signed, np.float32), dtype)


def _fixed(bits, step, range_, methods, operand, least_bits, most_bits):  # type: ignore[no-untyped-def]
    """(bits, step, range) with the width that a method brings, as narrow as the machine takes; step and range agree.

    The width of a label is its own: what addresses a table enters no multiplier, and `DesignSpace` sees to its bound.
    """
    said = [m.fixed_bits[operand] for m in methods]
    if all(width is None for width in said):
        return bits, step, range_
    held = np.asarray([width is not None for width in said])
    labels = [operand == 0 and m.label_bits is not None for m in methods]
    widths = [
        0.0 if width is None else width if label else min(max(width, least_bits[operand]), most_bits)
        for width, label in zip(said, labels, strict=True)
    ]
    return jnp.where(held, np.asarray(widths, bits.dtype), bits), jnp.where(held, range_, step), range_


def _entry_units(step, range_, tables, entry_bits):  # type: ignore[no-untyped-def]
    """(step, range) with those of the tables where a layer has one."""
    if tables is None:
        return step, range_
    units = [entry_unit(table, entry_bits) if table.size else (0.0, 0.0) for table in tables]
    own_step, own_range = (
        jnp.stack([jnp.asarray(u, step.dtype) for u in column]) for column in zip(*units, strict=True)
    )
    return jnp.where(own_range > 0, own_step, step), jnp.where(own_range > 0, own_range, range_)


def _width(log2_step, log2_range, signed, most_bits, frozen_bits, frozen, blends):  # type: ignore[no-untyped-def]
    """(bits, step, range) of one operand; the step is clipped straight-through to the legal widths."""
    step, range_ = 2.0**log2_step, 2.0**log2_range
    if most_bits < MIN_BITS:
        return jnp.full_like(range_, most_bits), range_, range_
    finest = range_of(jnp.ones_like(step), jnp.asarray(most_bits), signed)
    coarsest = range_of(jnp.ones_like(step), jnp.asarray(MIN_BITS), signed)
    legal_step = clip_ste(step, range_ / finest, range_ / coarsest)
    bits = clip_ste(integer_bits(legal_step, range_, signed), MIN_BITS, most_bits)
    if any(blends):
        bits = jnp.where(
            np.asarray(blends), clip_ste(bits_of(legal_step, range_, signed), MIN_BITS, most_bits), bits
        )  # fmt: skip
    held = frozen > 0.5
    return (
        jnp.where(held, frozen_bits, bits),
        jnp.where(held, step, legal_step),
        jnp.where(held, range_of(step, frozen_bits, signed), range_),
    )
