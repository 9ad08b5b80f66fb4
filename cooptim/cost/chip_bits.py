"""Bits of a network's words under learned widths and masks, as the layers of a chip that is sized.

A tensor with zeros is kept as a flag a word that says whether it is zero, and the words that are not. Sums are as wide
as a product and the carries that their number can make; outputs as the layers that take them want them.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.mapping.chip_descent import Loads
from cooptim.mapping.stack import Stack
from cooptim.network.quantized import OperandDesign
from cooptim.network.stats import Stats
from cooptim.workload import Workload
from cooptim.workload.graph import facts

FLAG_BITS = 1.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WordBits:
    """Mean bits of a word of each operand, stacked on the `layer` axis; `names` are those of the layers."""

    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    w_bits: Float[Array, "layer"]
    i_bits: Float[Array, "layer"]
    psum_bits: Float[Array, "layer"]
    o_bits: Float[Array, "layer"]


def flagged_bits(width_bits: Float[ArrayLike, "*#n"], density: Float[ArrayLike, "*#n"]) -> Float[Array, "..."]:
    """Mean bits of a word of this width with a flag that says whether it is zero, which is then all that is kept."""
    return FLAG_BITS + jnp.asarray(density) * width_bits


def word_bits(
    workload: Workload,
    operands: OperandDesign,
    stats: Stats | None = None,
    *,
    shorter: bool = False,
    output_bits: float = 8.0,
    most_sum_bits: float = 24.0,
) -> WordBits:
    """Bits of every layer's words; differentiable in widths and densities.

    Args:
      stats: measured shares of non-zero words; None keeps all words as they are, without flags.
      shorter: flags only where they shorten a tensor, as it would be built; without, all tensors have them, so that
        every density has a gradient.
      output_bits: of words that leave the network.
      most_sum_bits: of the accumulators; wider sums saturate there.

    Outputs have the mean bits of the inputs that they become. Sums: w + i + log2 of their number, rounded up: no
    narrower word holds every sum.

    Raises ValueError for operands of another number of layers.
    """
    layers, known = workload.layers, facts(workload)
    w, i = jnp.asarray(operands.weight_bits), jnp.asarray(operands.input_bits)
    for what, found in (("weight_bits", w), ("input_bits", i)):
        if found.shape != (len(layers),):
            raise ValueError(
                f"{workload.name}: {what} has shape {found.shape}, its layers ask for {(len(layers),)}; decode the "
                "operands with knobs of this network"
            )
    carries = np.array([math.ceil(math.log2(x.bounds.C * x.bounds.FY * x.bounds.FX)) for x in layers])
    kept_w, kept_i = w, i
    if stats is not None:
        kept_w, kept_i = flagged_bits(w, stats.weight_density), flagged_bits(i, stats.input_density)
        if shorter:
            kept_w, kept_i = jnp.minimum(w, kept_w), jnp.minimum(i, kept_i)
    takers = known.produces / np.maximum(known.produces.sum(axis=1, keepdims=True), 1)
    passed = jnp.sum(jnp.asarray(takers, kept_i.dtype) * kept_i, axis=1)
    sums = jnp.minimum(w + i + carries.astype(w.dtype), most_sum_bits)
    return WordBits(workload.names, kept_w, kept_i, sums, jnp.where(known.is_output, output_bits, passed))


def stack_under(loads: Loads, bits: Mapping[str, WordBits]) -> Stack:
    """The loads' stack with other bits: what `relaxed_chip` takes as `stack`; differentiable in all of them.

    Args:
      bits: by network; networks that are left out keep their own.

    Raises ValueError for unknown networks and layers, and where several layers share one entry.
    """
    unknown = sorted(set(bits) - set(loads.names))
    if unknown:
        raise ValueError(f"bits of {', '.join(unknown)}: the loads hold {', '.join(loads.names)}; use their names")
    columns: dict[str, list[Any]] = {f: [] for f in ("w_bits", "i_bits", "psum_bits", "o_bits")}
    for n, (owner, members) in enumerate(zip(loads.owners, loads.members, strict=True)):
        given = bits.get(owner)
        if given is not None and len(members) > 1:
            raise ValueError(
                f"{owner}: layers {', '.join(members)} are equal and share an entry; give each bits of its own with "
                "together(loads, merge=False)"
            )
        if given is not None and members[0] not in given.names:
            raise ValueError(
                f"{owner}: layer {members[0]} has no bits; they are of {', '.join(given.names)}: make the load's "
                "shapes from the workload that the bits are of"
            )
        for field, column in columns.items():
            own = getattr(loads.stack.shape, field)[n]
            column.append(own if given is None else getattr(given, field)[given.names.index(members[0])])
    found: dict[str, Any] = {field: jnp.stack(column) for field, column in columns.items()}
    shape = dataclasses.replace(loads.stack.shape, **found)
    return dataclasses.replace(loads.stack, shape=shape)
