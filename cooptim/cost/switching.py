"""What it takes to change mode and supply between consecutive layers: charge on the rail, and time to settle."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.hardware.dvafs import leakage_mw
from cooptim.hardware.machine import Machine, Switching


class Changes(NamedTuple):
    """Of each layer, what entering it from the layer before takes."""

    energy_pj: Float[Array, "*layer"]
    time_ns: Float[Array, "*layer"]


def changes(
    machine: Machine,
    mode: Float[Array, "layer mode"],
    supply_v: Float[Array, "layer"],
    buffer_bits: Float[ArrayLike, ""],
) -> Changes | None:
    """Energy and time of entering each layer; None on a machine whose changes take nothing.

    Layers run in the order of the workload, and the first is entered from the last (steady state). The way through the
    retention supply between inferences is not charged. Between relaxed modes the chance that two layers differ counts,
    1 - sum_k m_k m'_k; a network of one layer never changes. Kink: two consecutive layers at the same supply.
    """
    if machine.switching is None:
        return None
    before_mode, before_v = jnp.roll(mode, 1, axis=0), jnp.roll(supply_v, 1)
    differs = 1.0 - jnp.sum(before_mode * mode, axis=1) if len(supply_v) > 1 else jnp.zeros_like(supply_v)
    return entering(machine, machine.switching, differs, before_v, supply_v, buffer_bits)


def mean_changes(
    machine: Machine,
    mode: Float[Array, "layer mode"],
    supply_v: Float[Array, "layer"],
    buffer_bits: Float[ArrayLike, ""],
    reach: Float[Array, "layer"],
) -> Changes | None:
    """Means over inputs of which `reach` come to each layer; None on a machine whose changes take nothing.

    The first layer is entered from the layer that ended the inference before, the others from the one before them.
    Exact where an input that skips a layer skips all that follow.
    """
    whole = changes(machine, mode, supply_v, buffer_bits)
    if whole is None or machine.switching is None:
        return None
    later = jax.lax.cummax(reach, axis=0, reverse=True)
    ends = later - jnp.append(later[1:], 0.0)  # share of inputs whose last layer it is
    differs = 1.0 - mode @ mode[0]
    back = entering(machine, machine.switching, differs, supply_v, supply_v[0], buffer_bits)
    return Changes(*((reach * all_).at[0].set(ends @ one) for all_, one in zip(whole, back, strict=True)))


def entering(
    machine: Machine,
    switching: Switching,
    differs: Float[ArrayLike, "*#n"],
    before_v: Float[ArrayLike, "*#n"],
    supply_v: Float[ArrayLike, "*#n"],
    buffer_bits: Float[ArrayLike, ""],
) -> Changes:
    """Energy [pJ] and time [ns] from one supply to the next, the mode changing to the extent `differs`, in [0, 1].

    Charging the scaled rail draws C max(V1^2 - V0^2, 0): twice what it then stores more, the rest is lost on the way;
    nothing comes back when the rail falls. A change of mode settles for mode_ns, the supply for step_ns a grid step;
    the clock stands still meanwhile and the chip leaks at the new supply.

    Source: stored energy C V^2 / 2, charged at an efficiency of one half. Burd & Brodersen's transition energy
    (1 - efficiency) C |V1^2 - V0^2|, both ways (ISLPED 2000, recalled), adds up to the same over a cycle then.
    """
    up_pj = switching.rail_pf * jnp.maximum(jnp.square(supply_v) - jnp.square(before_v), 0.0)
    steps = jnp.abs(jnp.asarray(supply_v) - before_v) / machine.supply.step_v
    time_ns = switching.mode_ns * differs + switching.step_ns * steps
    return Changes(up_pj + leakage_mw(machine, supply_v, buffer_bits) * time_ns, time_ns)
