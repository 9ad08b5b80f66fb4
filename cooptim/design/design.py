"""A Design: every physical choice for a workload on a machine, relaxed or final; nothing in it says which."""

import dataclasses

import jax
from jaxtyping import Array, Float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Operands:
    """How a network's weights and inputs are kept, whatever hardware runs it, stacked on the `layer` axis."""

    input_signed: tuple[bool, ...] = dataclasses.field(metadata={"static": True})  # one a layer, by what the data does
    weight_bits: Float[Array, "layer"]
    weight_step: Float[Array, "layer"]  # quantization step, in units of the weight
    weight_range: Float[Array, "layer"]  # largest magnitude represented
    threshold: Float[Array, "layer"]  # weights of smaller magnitude are pruned, in units of the weight
    input_bits: Float[Array, "layer"]
    input_step: Float[Array, "layer"]
    input_range: Float[Array, "layer"]


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
