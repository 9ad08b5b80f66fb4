"""Bit operations: the proxy of hardware cost that most work on learned widths brings down, for comparison with it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cooptim.design.design import Operands
from cooptim.network.stats import Stats
from cooptim.workload import Workload
from cooptim.workload.graph import facts


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BitOperations:
    """Bit operations where a step looks for energy, so that a descent can bring them down; no time, no silicon."""

    total_energy_pj: Float[Array, ""]
    total_latency_ns: Float[Array, ""]
    area_mm2: Float[Array, ""]


def bit_operations(workload: Workload, design: Operands, stats: Stats | None = None) -> Float[Array, "layer"]:
    """MACs x bits of the weight x bits of the input of one inference, a layer.

    Args:
      stats: with them, MACs whose weight is zero do not count, nor those of inputs that left before the layer.
    """
    macs = jnp.asarray(facts(workload).macs, jnp.result_type(design.weight_bits))
    dense = macs * design.weight_bits * design.input_bits
    if stats is None:
        return dense
    left = dense * stats.weight_density
    return left if stats.reach is None else left * stats.reach


def bit_operations_price(
    workload: Workload, machine: Any, design: Operands, stats: Stats, *, period_ns: Any = None, tilings: Any = None
) -> BitOperations:
    """Bit operations of the weights that are left in the place of `evaluate`, for `descent.step.make_step`."""
    del machine, period_ns, tilings
    total = jnp.sum(bit_operations(workload, design, stats))
    return BitOperations(total, jnp.ones_like(total), jnp.ones_like(total))
