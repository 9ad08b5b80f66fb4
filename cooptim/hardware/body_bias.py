"""Body bias: a threshold that moves with the bias of the body, and what that does to speed and leakage.

Not a knob of the design: one bias a machine, moved by `at_body_bias`, which is differentiable in it; every law, price
and search then sees a machine with that threshold, clock and leakage.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.hardware.dvafs import speed
from cooptim.hardware.machine import BodyBias, Machine, Supply

_SLACK_V = 1e-6  # a bias this close to an end of the range stands on it


def threshold_at_bias(supply: Supply, bias_v: Float[ArrayLike, "*#n"]) -> Float[Array, "..."]:
    """Threshold at this body bias [V]; falls by `shift` a volt of forward bias.

    Raises ValueError for a supply without body bias.

    Source: linear body factor of fully depleted SOI, recalled.
    """
    body = _body(supply, "the supply")
    return supply.threshold_v - body.shift * (jnp.asarray(bias_v) - body.bias_v)


def leakage_factor(supply: Supply, bias_v: Float[ArrayLike, "*#n"]) -> Float[Array, "..."]:
    """Leakage at this body bias over that at the supply's own; ten times for each swing that the threshold falls.

    Raises ValueError for a supply without body bias.

    Source: subthreshold current, exponential in the threshold.
    """
    body = _body(supply, "the supply")
    return 10.0 ** ((supply.threshold_v - threshold_at_bias(supply, bias_v)) / body.swing_v)


def at_body_bias(machine: Machine, bias_v: Float[ArrayLike, ""]) -> Machine:
    """The machine at another body bias [V]: threshold, leakage, and the clock that the nominal supply gives.

    Pure and differentiable. Energies a cycle and the supply grid stay.

    Raises ValueError, when the bias is no tracer, for a machine without body bias, a bias out of its range, or a
    threshold that reaches the floor of the supply.
    """
    s = machine.supply
    body = _body(s, f"machine {machine.name}")
    threshold = threshold_at_bias(s, bias_v)
    if not any(isinstance(x, jax.core.Tracer) for x in (threshold, *jax.tree.leaves(s))):
        _require_range(machine.name, s, body, float(jnp.asarray(bias_v)), float(threshold))
    moved = dataclasses.replace(s, threshold_v=threshold)
    supply = dataclasses.replace(
        moved,
        nominal_ghz=s.nominal_ghz * (speed(moved, s.nominal_v) / speed(s, s.nominal_v)),
        leakage_mw=s.leakage_mw * leakage_factor(s, bias_v),
        body=dataclasses.replace(body, bias_v=jnp.asarray(bias_v, body.bias_v.dtype)),
    )
    return dataclasses.replace(machine, supply=supply)


def _body(supply: Supply, who: str) -> BodyBias:
    if supply.body is None:
        raise ValueError(f"{who} has no body bias; add a section body_bias to the machine file")
    return supply.body


def _require_range(name: str, supply: Supply, body: BodyBias, bias_v: float, threshold_v: float) -> None:
    low, high = float(body.min_v), float(body.max_v)
    if not low - _SLACK_V <= bias_v <= high + _SLACK_V:
        raise ValueError(
            f"machine {name}: body bias {bias_v:g} V; legal: body_bias.min_bias {low:g} to body_bias.max_bias {high:g} "
            "V; stay inside, or widen the range in the machine file"
        )
    if threshold_v >= float(supply.floor_v):
        raise ValueError(
            f"machine {name}: at a body bias of {bias_v:g} V the threshold is {threshold_v:g} V; legal: below "
            f"supply.floor_v {float(supply.floor_v):g} V; raise the bias or the floor"
        )
