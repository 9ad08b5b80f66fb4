"""Pruning by magnitude and the share of non-zero words, both exact forward and smooth backward."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cooptim.relax.rounding import replace_gradient

_TINY = 1e-15  # its square is still a normal float32, which the gradient of a quotient needs


def _ramp(magnitude: Float[Array, "*n"], cut: Float[Array, "..."]) -> Float[Array, "*n"]:
    """0 at magnitude 0, 1/2 at `cut`, 1 from 2*cut on: the smooth stand-in for magnitude > cut."""
    return jnp.clip(magnitude / (2.0 * jnp.maximum(cut, _TINY)), 0.0, 1.0)


def prune(w: Float[Array, "*n"], threshold: Float[Array, "..."]) -> Float[Array, "*n"]:
    """w where its magnitude exceeds `threshold`, else 0.

    Backward: identity in w (a pruned weight goes on learning and can return); in the threshold, the slope of a linear
    ramp from 0 to 2*threshold.
    """
    magnitude = jnp.abs(w)
    hard = jnp.where(magnitude > threshold, w, 0.0)
    soft = jax.lax.stop_gradient(w) * _ramp(jax.lax.stop_gradient(magnitude), threshold)
    return replace_gradient(hard, w + soft)


def present(x: Float[Array, "*n"], cut: Float[Array, "..."]) -> Float[Array, "*n"]:
    """1 where a word's magnitude is above `cut`, else 0; the gradient is that of the ramp, in x and in `cut`."""
    magnitude = jnp.abs(x)
    return replace_gradient((magnitude > cut).astype(x.dtype), _ramp(magnitude, cut))


def density(x: Float[Array, "..."], cut: Float[Array, "..."]) -> Float[Array, ""]:
    """Share of words of magnitude above `cut`, counted exactly; the gradient is that of the ramp, in x and in `cut`."""
    return jnp.mean(present(x, cut))
