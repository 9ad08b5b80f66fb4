"""A Design: every physical choice for a workload on a machine, relaxed or final; nothing in it says which."""

import dataclasses

import jax
from jaxtyping import Array, Float

from cooptim.relax.method import Method


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Operands:
    """How a network's weights and inputs are kept, whatever hardware runs it, stacked on the `layer` axis.

    Attributes:
      methods: one a layer; () is the default for all.
      weight_scale: one factor an output channel (groups, then channels of a group) on step and range of the weights,
        for layers whose method is per channel; size 0 for others. None where no layer's is.
      codebook: table of the values that weights take, for layers whose method has one; size 0 for others. Of such a
        layer `weight_bits` is the width of a label, and values are stored as whole multiples of `weight_step`.
    """

    input_signed: tuple[bool, ...] = dataclasses.field(metadata={"static": True})  # one a layer, by what the data does
    weight_bits: Float[Array, "layer"]
    weight_step: Float[Array, "layer"]  # quantization step, in units of the weight
    weight_range: Float[Array, "layer"]  # largest magnitude represented
    threshold: Float[Array, "layer"]  # weights of smaller magnitude are pruned, in units of the weight
    input_bits: Float[Array, "layer"]
    input_step: Float[Array, "layer"]
    input_range: Float[Array, "layer"]
    methods: tuple[Method, ...] = dataclasses.field(default=(), kw_only=True, metadata={"static": True})
    weight_scale: tuple[Float[Array, "_"], ...] | None = dataclasses.field(default=None, kw_only=True)
    codebook: tuple[Float[Array, "_"], ...] | None = dataclasses.field(default=None, kw_only=True)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Design(Operands):
    """Physical choices, stacked on the `layer` axis in the order of the workload.

    A legal design has integer widths, one-hot modes and tilings, and supplies, clocks and sizes on the machine's grid
    (see `cooptim.design.legal`).
    """

    mode: Float[Array, "layer mode"]  # share of each subword mode; sums to 1
    tiling: Float[Array, "layer row"]  # share of each row of the tiling table; sums to 1
    supply_v: Float[Array, "layer"]
    freq_ghz: Float[Array, "layer"]
    buffer_bits: Float[Array, ""]
    exit_margin: Float[Array, "exit"] | None = None  # log-odds of its class at which an input leaves [nat]
