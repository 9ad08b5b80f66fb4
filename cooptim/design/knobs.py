"""Knobs: the unconstrained reals that an optimizer moves; `DesignSpace.decode` makes a physical Design of them."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OperandKnobs:
    """What a network's numbers hang on, whatever hardware runs it: quantizers and masks, stacked on the `layer` axis.

    Any real value is allowed; `cooptim.design.operands` starts, decodes and bounds them. The last two are None (no
    leaf) unless a layer's method asks for them; then a layer without has an array of size 0.
    """

    weight_log2_step: Float[Array, "layer"]
    weight_log2_range: Float[Array, "layer"]
    log2_threshold: Float[Array, "layer"]
    input_log2_step: Float[Array, "layer"]
    input_log2_range: Float[Array, "layer"]
    weight_log2_scale: tuple[Float[Array, "_"], ...] | None = dataclasses.field(default=None, kw_only=True)
    codebook: tuple[Float[Array, "_"], ...] | None = dataclasses.field(default=None, kw_only=True)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Knobs(OperandKnobs):
    """One leaf a kind of choice, stacked on the `layer` axis; any real value is allowed.

    `buffer` is None (no leaf) unless the machine frees the size of its buffer, `exit_margin` unless the network has
    early exits.
    """

    mode_logits: Float[Array, "layer mode"]
    tiling_logits: Float[Array, "layer row"]
    supply: Float[Array, "layer"]
    buffer: Float[Array, ""] | None = None
    exit_margin: Float[Array, "exit"] | None = None  # as in the design


def knob_names(knobs: Knobs) -> tuple[str, ...]:
    """Names of the leaves that exist, in order."""
    return tuple(f.name for f in dataclasses.fields(knobs) if getattr(knobs, f.name) is not None)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Phase:
    """Traced switches of `decode`, so that one compiled program serves every phase of a descent.

    Attributes:
      quantize: 1 quantizes, 0 leaves weights and inputs in float (32 bits).
      prune: 1 prunes below the threshold, 0 prunes nothing.
      frozen: 1 takes the widths from `weight_bits` and `input_bits` (the range follows the step), 0 learns them.
      weight_bits, input_bits: the frozen widths [bit].
    """

    quantize: Float[Array, ""]
    prune: Float[Array, ""]
    frozen: Float[Array, ""]
    weight_bits: Float[Array, "layer"]
    input_bits: Float[Array, "layer"]


def free_phase(layers: int) -> Phase:
    """Everything learned: widths, pruning, hardware."""
    return Phase(jnp.ones(()), jnp.ones(()), jnp.zeros(()), 8.0 * jnp.ones(layers), 8.0 * jnp.ones(layers))


def float_phase(layers: int) -> Phase:
    """The network in float: nothing quantized, nothing pruned."""
    return dataclasses.replace(free_phase(layers), quantize=jnp.zeros(()), prune=jnp.zeros(()))


def frozen_phase(weight_bits: Float[Array, "layer"], input_bits: Float[Array, "layer"], *, prune: bool = True) -> Phase:
    """Widths held at the given bits; steps and, when `prune`, thresholds still learn."""
    on = jnp.ones(())
    # One dtype for all callers, or a weakly typed width would compile the step a second time.
    widths = (jnp.asarray(bits, on.dtype) for bits in (weight_bits, input_bits))
    return Phase(on, on if prune else 0.0 * on, on, *widths)
