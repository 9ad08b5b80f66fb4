"""Which inputs leave a staged network early: decisions by confidence, hard and made differentiable."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.relax.choice import hard_choice


def log_odds(logits: Float[Array, "*n classes"]) -> Float[Array, "*n"]:
    """Confidence in the likeliest class: log p/(1 - p) of its softmax probability p [nat]; at least two classes.

    A monotone function of p that keeps its resolution where p rounds to 1.
    """
    best = hard_choice(logits) > 0
    return jnp.max(logits, axis=-1) - jax.nn.logsumexp(jnp.where(best, -jnp.inf, logits), axis=-1)


def leaving_shares(
    confidence: Float[Array, "exit *n"], margin: Float[Array, "exit"], temperature: Float[ArrayLike, ""]
) -> Float[Array, "stage *n"]:
    """Probability that each input leaves at each exit, and at the end; sums to 1 over `stage`.

    An input that comes by an exit leaves it with probability sigmoid((confidence - margin) / temperature).

    Args:
      confidence, margin: log-odds [nat]. temperature: > 0 [nat].
    """
    chance = jax.nn.sigmoid((confidence - margin.reshape(-1, *[1] * (confidence.ndim - 1))) / temperature)
    return _by_stage(chance)


def leaving_stage(confidence: Float[Array, "exit *n"], margin: Float[Array, "exit"]) -> Float[Array, "stage *n"]:
    """The same as decided: one-hot of the first exit whose margin the confidence reaches, or of the end."""
    chance = confidence >= margin.reshape(-1, *[1] * (confidence.ndim - 1))
    return _by_stage(chance.astype(confidence.dtype))


def _by_stage(chance: Float[Array, "exit *n"]) -> Float[Array, "stage *n"]:
    """Shares by stage from the chance of leaving at each exit that is reached."""
    stays = jnp.cumprod(1.0 - chance, axis=0)
    here = jnp.concatenate([jnp.ones_like(stays[:1]), stays])
    return here * jnp.concatenate([chance, jnp.ones_like(stays[:1])])
