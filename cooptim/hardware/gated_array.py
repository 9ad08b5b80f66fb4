"""An array of MACs that gates zero operands, behind one buffer and one off-chip link: power and latency in closed form.

Three parts of power: what always runs, and the energy of a MAC with and without a zero operand. Latency is bounded by
the busier of MACs and buffer, and what the link moves comes on top. Pure and differentiable; Eyeriss is one such chip.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.hardware.dvafs import gate_speed


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GatedArray:
    """The numbers of one such chip at one supply and clock."""

    name: str = dataclasses.field(metadata={"static": True})
    rows: int = dataclasses.field(metadata={"static": True})
    cols: int = dataclasses.field(metadata={"static": True})
    word_bits: int = dataclasses.field(metadata={"static": True})
    supply_v: Float[Array, ""]
    clock_ghz: Float[Array, ""]
    threshold_v: Float[Array, ""]
    alpha: Float[Array, ""]  # clock ~ (V - threshold)^alpha / V
    always_on_mw: Float[Array, ""]  # clock, control, registers and idle memory while a layer runs
    busy_mac_pj: Float[Array, ""]  # a MAC of two non-zero operands, its share of memory traffic included
    zero_mac_pj: Float[Array, ""]  # a MAC that a zero input gates
    cycles_per_mac: Float[Array, ""]  # of an active unit, array filling and draining included
    buffer_bit_per_ns: Float[Array, ""]
    link_bit_per_ns: Float[Array, ""]
    code_bits_per_value: Float[Array, ""]  # link bits of a non-zero word in the run-length code, its run included


def processing_ns(
    array: GatedArray,
    macs: Float[ArrayLike, "*#n"],
    active_units: Float[ArrayLike, "*#n"],
    buffer_bits: Float[ArrayLike, "*#n"],
) -> Float[Array, "..."]:
    """Time from the first to the last MAC [ns]: the longer of the MACs on the active units and the buffer's words.

    Args:
      macs: of the whole batch. active_units: MACs that the mapping keeps busy. buffer_bits: read and written.

    Source: roofline of two overlapping resources.
    """
    compute = array.cycles_per_mac * jnp.asarray(macs) / (active_units * array.clock_ghz)
    return jnp.maximum(compute, buffer_bits / array.buffer_bit_per_ns)


def total_ns(
    array: GatedArray, processing: Float[ArrayLike, "*#n"], link_bits: Float[ArrayLike, "*#n"]
) -> Float[Array, "..."]:
    """Time of a layer with its traffic over the link, which does not overlap [ns].

    Source: assumption; the published total latencies exceed the processing latencies by 0.4 to 2.5 ms a MB.
    """
    return jnp.asarray(processing) + link_bits / array.link_bit_per_ns


def energy_pj(
    array: GatedArray,
    macs: Float[ArrayLike, "*#n"],
    zero_fraction: Float[ArrayLike, "*#n"],
    latency_ns: Float[ArrayLike, "*#n"],
) -> Float[Array, "..."]:
    """Energy on chip of a layer that takes this long [pJ].

    Args:
      macs: of the whole batch, gated ones included. zero_fraction: share of them with a zero input, in [0, 1].
    """
    gated = jnp.asarray(zero_fraction)
    per_mac = array.busy_mac_pj * (1.0 - gated) + array.zero_mac_pj * gated
    return array.always_on_mw * latency_ns + per_mac * macs


def power_mw(
    array: GatedArray,
    macs: Float[ArrayLike, "*#n"],
    zero_fraction: Float[ArrayLike, "*#n"],
    latency_ns: Float[ArrayLike, "*#n"],
) -> Float[Array, "..."]:
    """Mean power on chip over a layer [mW]."""
    return energy_pj(array, macs, zero_fraction, latency_ns) / latency_ns


def at_supply(array: GatedArray, supply_v: Float[ArrayLike, ""]) -> GatedArray:
    """The chip at another supply and the fastest clock there: energies with V^2, clock and bandwidths with the speed.

    Source: alpha-power law (`hardware.dvafs.gate_speed`) and C V^2; one rail, buffer and link on its clock, leakage
    not told apart from the always-on power.
    """
    volts = jnp.asarray(supply_v)
    energy = (volts / array.supply_v) ** 2
    fast = gate_speed(volts, array.threshold_v, array.alpha) / gate_speed(
        array.supply_v, array.threshold_v, array.alpha
    )
    return dataclasses.replace(
        array,
        supply_v=volts,
        clock_ghz=array.clock_ghz * fast,
        always_on_mw=array.always_on_mw * energy * fast,
        busy_mac_pj=array.busy_mac_pj * energy,
        zero_mac_pj=array.zero_mac_pj * energy,
        buffer_bit_per_ns=array.buffer_bit_per_ns * fast,
        link_bit_per_ns=array.link_bit_per_ns * fast,
    )


def coded_bits_per_word(array: GatedArray, zero_fraction: Float[ArrayLike, "*#n"]) -> Float[Array, "..."]:
    """Least link bits of a word at this zero rate: raw, or a (run, value) pair for each non-zero word.

    Zeros cost nothing of their own, so longer runs than the code's only add: never above what the code needs.
    """
    return jnp.minimum(float(array.word_bits), array.code_bits_per_value * (1.0 - jnp.asarray(zero_fraction)))
