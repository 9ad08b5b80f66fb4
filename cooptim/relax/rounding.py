"""Straight-through rounding, clipping and thresholds."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def replace_gradient(forward: Float[Array, "*n"], backward: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Value of `forward`, gradient of `backward` (straight-through estimator)."""
    # Written so that the added term is exactly 0: backward + (forward - backward) would lose the last bit.
    return jax.lax.stop_gradient(forward) + (backward - jax.lax.stop_gradient(backward))


def round_ste(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Nearest integer (ties to even) forward, identity backward."""
    return replace_gradient(jnp.round(x), x)


def ceil_ste(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Smallest integer not below x forward, identity backward; 1e-4 above an integer still counts as that integer."""
    return replace_gradient(jnp.ceil(x - 1e-4), x)


def clip_ste(
    x: Float[Array, "*n"], low: Float[Array, "..."] | float, high: Float[Array, "..."] | float
) -> Float[Array, "*n"]:
    """x limited to [low, high] forward, identity backward, so that a knob at its bound can come back."""
    return replace_gradient(jnp.clip(x, low, high), x)
