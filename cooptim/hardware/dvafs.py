"""Dynamic voltage-accuracy-frequency scaling: what width, subwords and supply do to energy, clock and leakage.

Pure and differentiable; the constants live in the machine. Source of the law: Moons & Verhelst, "DVAFS: Trading
computational accuracy for energy through dynamic-voltage-accuracy-frequency-scaling" (DATE 2017).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.hardware.machine import Datapath, Machine, Mode, Supply

_GRID_SLACK = 1e-4  # of one grid step: a value this close below a grid point stands on it
_HALVINGS = 80  # of the bracket in `supply_at_speed`; the result is exact in float64


def activity_divisor(
    datapath: Datapath, mode: Mode, weight_bits: Float[ArrayLike, "*#n"], input_bits: Float[ArrayLike, "*#n"]
) -> Float[Array, "..."]:
    """Divisor of the busy datapath's energy per cycle in `mode` at these operand widths; 1 at one lane and full width.

    N lanes of S = width/N bits divide by N^subword_exponent, and bits left unused inside the slot by a further
    (S / sqrt(b_W b_I))^gating_exponent, each width counted at most S. Kinks: a width equal to S.

    Source: published on the diagonal b_W = b_I = 4 only: 12.5 at 1x4b (k1) and 3.2 at 4x4b (k3). Assumptions: the power
    law between the anchors, the geometric mean off the diagonal, and gating inside a slot of a subword mode.
    """
    d = datapath
    lanes, slot = float(mode.lanes), float(mode.slot_bits)
    return scaled_divisor(d.gating_exponent, d.subword_exponent, lanes, slot, weight_bits, input_bits)


def activity_divisors(
    datapath: Datapath, weight_bits: Float[ArrayLike, "*#n"], input_bits: Float[ArrayLike, "*#n"]
) -> Float[Array, "*n mode"]:
    """`activity_divisor` of every mode, on a last axis."""
    wide_w, wide_i = jnp.asarray(weight_bits)[..., None], jnp.asarray(input_bits)[..., None]
    lanes, slots = (np.asarray([getattr(m, x) for m in datapath.modes], wide_w.dtype) for x in ("lanes", "slot_bits"))
    return scaled_divisor(datapath.gating_exponent, datapath.subword_exponent, lanes, slots, wide_w, wide_i)


def scaled_divisor(
    gating_exponent: Float[ArrayLike, ""],
    subword_exponent: Float[ArrayLike, ""],
    lanes: Float[ArrayLike, "..."],
    slot_bits: Float[ArrayLike, "..."],
    weight_bits: Float[ArrayLike, "..."],
    input_bits: Float[ArrayLike, "..."],
) -> Float[Array, "..."]:
    """The law of `activity_divisor` for any multiplier: `lanes` of `slot_bits` that hold operands of these widths."""
    held_w, held_i = (jnp.minimum(jnp.maximum(bits, 1.0), slot_bits) for bits in (weight_bits, input_bits))
    unused = slot_bits / jnp.sqrt(held_w * held_i)
    return jnp.asarray(lanes) ** subword_exponent * unused**gating_exponent


def critical_path(supply: Supply, width_bits: float | int, active_bits: Float[ArrayLike, "*#n"]) -> Float[Array, "..."]:
    """Critical path at `active_bits` = max(b_W, b_I) over that of the full width, in (0, 1]; linear in the width.

    Widths above the datapath's count as full. Source: assumption; path_share is fitted to the published DVAS gain.
    """
    return 1.0 - supply.path_share * (1.0 - jnp.minimum(active_bits, width_bits) / width_bits)


def gate_speed(
    supply_v: Float[ArrayLike, "*#n"], threshold_v: Float[ArrayLike, ""], alpha: Float[ArrayLike, ""]
) -> Float[Array, "..."]:
    """Speed of a gate at this supply, (V - V_t)^alpha / V; 0 at and below the threshold.

    Source: alpha-power law, Sakurai & Newton, IEEE JSSC 25(2), 1990.
    """
    over = jnp.asarray(supply_v) - threshold_v
    on = over > 0
    return jnp.where(on, jnp.where(on, over, 1.0) ** alpha / jnp.where(on, supply_v, 1.0), 0.0)


def speed(supply: Supply, supply_v: Float[ArrayLike, "*#n"]) -> Float[Array, "..."]:
    """`gate_speed` with the threshold and exponent of this supply."""
    return gate_speed(supply_v, supply.threshold_v, supply.alpha)


def max_clock_ghz(
    supply: Supply, supply_v: Float[ArrayLike, "*#n"], path: Float[ArrayLike, "*#n"]
) -> Float[Array, "..."]:
    """Fastest clock at this supply and relative critical path [GHz]; nominal_ghz at nominal_v and path 1."""
    return supply.nominal_ghz * speed(supply, supply_v) / speed(supply, supply.nominal_v) / path


def supply_for_clock(
    supply: Supply, freq_ghz: Float[ArrayLike, "*#n"], path: Float[ArrayLike, "*#n"]
) -> Float[Array, "..."]:
    """Lowest supply, not below the floor, that reaches this clock at this relative critical path [V].

    The inverse of `max_clock_ghz`: bisection, then one Newton step that carries the gradient. Not limited by the
    ceiling: a result above it says that the clock is out of reach.
    """
    wanted = freq_ghz * path / supply.nominal_ghz * speed(supply, supply.nominal_v)
    value = supply_at_speed(wanted, supply.threshold_v, supply.alpha, 4.0 * supply.ceiling_v)
    return jnp.maximum(value, supply.floor_v)


def supply_at_speed(
    wanted: Float[ArrayLike, "*#n"],
    threshold_v: Float[ArrayLike, ""],
    alpha: Float[ArrayLike, ""],
    highest_v: Float[ArrayLike, ""],
) -> Float[Array, "..."]:
    """The supply of this `gate_speed` [V], at most highest_v; differentiable in all but the last."""
    target = jax.lax.stop_gradient(jnp.asarray(wanted))

    def halve(_, bracket):  # type: ignore[no-untyped-def]
        low, high = bracket
        middle = 0.5 * (low + high)
        slow = gate_speed(middle, threshold_v, alpha) < target
        return jnp.where(slow, middle, low), jnp.where(slow, high, middle)

    zero = jnp.zeros_like(target)
    found = jax.lax.stop_gradient(jax.lax.fori_loop(0, _HALVINGS, halve, (zero + threshold_v, zero + highest_v))[1])
    over = found - jax.lax.stop_gradient(threshold_v)
    slope = gate_speed(found, threshold_v, alpha) * (alpha / jnp.where(over > 0, over, 1.0) - 1.0 / found)
    slope = jnp.where(over > 0, jax.lax.stop_gradient(slope), 1.0)
    return found - (gate_speed(found, threshold_v, alpha) - wanted) / jnp.where(slope > 0, slope, 1.0)


def dynamic_scale(supply: Supply, supply_v: Float[ArrayLike, "*#n"]) -> Float[Array, "..."]:
    """Dynamic energy at this supply over that with both rails at V0: C V^2, of the fixed rail at its own supply."""
    fixed = 1.0 if supply.fixed_v is None else (supply.fixed_v / supply.nominal_v) ** 2
    return (1.0 - supply.fixed_share) * (supply_v / supply.nominal_v) ** 2 + supply.fixed_share * fixed


def leakage_mw(
    machine: Machine, supply_v: Float[ArrayLike, "*#n"], buffer_bits: Float[ArrayLike, ""]
) -> Float[Array, "..."]:
    """Leakage of the whole chip while it runs, scaled rail at this supply, at this buffer size [mW].

    The scaled rail's part is 0 at 0 V; the fixed rail's stays.

    Source: power law in V and a part linear in memory size; both exponents and shares are the machine file's.
    """
    s = machine.supply
    scaled = _rail_leakage_mw(machine, supply_v, buffer_bits)
    if s.fixed_leakage_share is None:
        return scaled
    fixed = _rail_leakage_mw(machine, s.nominal_v if s.fixed_v is None else s.fixed_v, buffer_bits)
    return (1.0 - s.fixed_leakage_share) * scaled + s.fixed_leakage_share * fixed


def standby_mw(machine: Machine, buffer_bits: Float[ArrayLike, ""]) -> Float[Array, ""]:
    """Leakage between inferences [mW]: both rails at the retention supply."""
    return _rail_leakage_mw(machine, machine.supply.retention_v, buffer_bits)


def _rail_leakage_mw(
    machine: Machine, supply_v: Float[ArrayLike, "*#n"], buffer_bits: Float[ArrayLike, ""]
) -> Float[Array, "..."]:
    """Leakage with all of the chip at one supply [mW]; 0 at 0 V."""
    s = machine.supply
    size = 1.0 + s.memory_leakage_share * (buffer_bits / machine.buffer.nominal_bits - 1.0)
    supply_v = jnp.asarray(supply_v)
    on = supply_v > 0
    ratio = jnp.where(on, supply_v, s.nominal_v) / s.nominal_v
    return jnp.where(on, s.leakage_mw * size * ratio**s.leakage_exponent, 0.0)


def supply_grid(supply: Supply) -> Float[np.ndarray, "supply"]:
    """Legal supplies, floor_v + i * step_v up to the ceiling, ascending [V]; numpy, in float64."""
    floor, ceiling, step = (float(x) for x in (supply.floor_v, supply.ceiling_v, supply.step_v))
    return floor + step * np.arange(int(np.floor((ceiling - floor) / step + _GRID_SLACK)) + 1)


def clock_on_grid(supply: Supply, freq_ghz: Float[ArrayLike, "*#n"]) -> Float[Array, "..."]:
    """The clock lowered to a multiple of step_ghz [GHz]; within 1e-4 of a step below a multiple counts as that one."""
    return jnp.floor(freq_ghz / supply.step_ghz + _GRID_SLACK) * supply.step_ghz
