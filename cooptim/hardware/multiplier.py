"""One DVAFS multiplier by itself: energy a word and supply at a width, subword mode and clock.

The same laws as the datapath of a whole processor (`hardware.dvafs`), without memory, control and leakage.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.hardware.dvafs import gate_speed, scaled_divisor, supply_at_speed


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ScalableMultiplier:
    """The numbers of one multiplier; supply_v and clock_ghz are those of one lane at full width."""

    name: str = dataclasses.field(metadata={"static": True})
    width_bits: int = dataclasses.field(metadata={"static": True})
    fixed_word_pj: Float[Array, ""]  # a multiplier of this width that cannot scale
    word_pj: Float[Array, ""]  # one lane at full width
    supply_v: Float[Array, ""]
    clock_ghz: Float[Array, ""]
    gating_exponent: Float[Array, ""]
    subword_exponent: Float[Array, ""]
    threshold_v: Float[Array, ""]
    alpha: Float[Array, ""]
    path_share: Float[Array, ""]


def lowest_supply_v(
    part: ScalableMultiplier, bits: Float[ArrayLike, "*#n"], freq_ghz: Float[ArrayLike, "*#n"]
) -> Float[Array, "..."]:
    """Lowest supply at which operands of so many bits keep this clock [V]."""
    path = 1.0 - part.path_share * (1.0 - jnp.asarray(bits) / part.width_bits)
    nominal = gate_speed(part.supply_v, part.threshold_v, part.alpha)
    wanted = jnp.asarray(freq_ghz) / part.clock_ghz * path * nominal
    return supply_at_speed(wanted, part.threshold_v, part.alpha, 4.0 * part.supply_v)


def word_energy_pj(
    part: ScalableMultiplier,
    lanes: Float[ArrayLike, "*#n"],
    bits: Float[ArrayLike, "*#n"],
    supply_v: Float[ArrayLike, "*#n"],
) -> Float[Array, "..."]:
    """Energy of one product, both operands of so many bits, `lanes` products a cycle [pJ].

    Source: E = E_16 / (k N) (V / V_0)^2, the DVAFS paper's equations (DATE 2017), without leakage.
    """
    slot = part.width_bits / jnp.asarray(lanes)
    divisor = scaled_divisor(part.gating_exponent, part.subword_exponent, jnp.asarray(lanes), slot, bits, bits)
    return part.word_pj / (divisor * lanes) * (jnp.asarray(supply_v) / part.supply_v) ** 2
