"""Budgets as constraints: augmented Lagrangian on c = log(cost/budget), with budgets that travel."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

CONSTRAINTS: tuple[str, ...] = ("energy", "latency", "area")
_DUAL_CLIP = 0.3  # largest |c| that moves a multiplier in one step


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Budgets:
    """Log of the budgets in force and whether each counts (1) or is free (0); axis `constraint` = CONSTRAINTS."""

    log_cost: Float[Array, "constraint"]
    active: Float[Array, "constraint"]


def excess(log_cost: Float[Array, "constraint"], budgets: Budgets) -> Float[Array, "constraint"]:
    """c = log(cost/budget): positive where a budget is broken, 0 where it is free."""
    return jnp.where(budgets.active > 0, log_cost - budgets.log_cost, 0.0)


def penalty(
    c: Float[Array, "constraint"], multipliers: Float[Array, "constraint"], strength: Float[ArrayLike, ""]
) -> Float[Array, ""]:
    """Augmented Lagrangian of c <= 0: its slope in c is max(0, multiplier + strength * c), summed.

    Below the budget the slope falls as well, so a multiplier that has overshot does not press on.

    Source: Rockafellar, "The multiplier method of Hestenes and Powell applied to convex programming", JOTA 12, 1973.
    """
    slope = jnp.maximum(multipliers + strength * c, 0.0)
    return jnp.sum((slope**2 - multipliers**2) / (2.0 * strength))


def raise_multipliers(
    multipliers: Float[Array, "constraint"], c: Float[Array, "constraint"], rate: Float[ArrayLike, ""]
) -> Float[Array, "constraint"]:
    """Projected ascent: a multiplier grows while its budget is broken and falls, not below 0, while there is slack."""
    return jnp.maximum(multipliers + rate * jnp.clip(c, -_DUAL_CLIP, _DUAL_CLIP), 0.0)


def travelling(start: float, target: float, progress: float) -> float:
    """Log of the budget at this share of its journey (0..1): log-linear from the starting cost to the target."""
    return start + (target - start) * min(max(progress, 0.0), 1.0)
