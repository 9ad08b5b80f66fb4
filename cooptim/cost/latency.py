"""Latency of one layer."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from cooptim.cost.energy import Operands, dram_bits
from cooptim.cost.words import Words
from cooptim.hardware.machine import Machine


def layer_latency_ns(machine: Machine, words: Words, layer: Operands, freq_ghz: Float[Array, ""]) -> Float[Array, ""]:
    """Time of one layer [ns]: array cycles or DRAM transfers, whichever is longer (perfect overlap).

    Kink: where both are equal. Buffer ports are taken to feed the array in every cycle.
    """
    compute_ns = jnp.dot(layer.mode, words.cycles) / freq_ghz
    transfer_ns = sum(dram_bits(machine, words, layer)) / machine.dram.bandwidth_bit_per_ns
    return jnp.maximum(compute_ns, transfer_ns)
