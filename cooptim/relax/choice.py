"""A choice among a few alternatives, made differentiable."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.relax.rounding import replace_gradient


def soft_choice(
    logits: Float[Array, "*n choice"], temperature: Float[ArrayLike, ""], feasibility: Float[ArrayLike, "..."] = 0.0
) -> Float[Array, "*n choice"]:
    """Shares of the alternatives: softmax of (logits + feasibility)/temperature; they sum to 1.

    Args:
      feasibility: log of a smooth feasibility in [0, 1], such as log_sigmoid(slack/scale); 0 where all are legal.
    """
    return jax.nn.softmax((logits + feasibility) / temperature, axis=-1)


def hard_choice(scores: Float[Array, "*n choice"]) -> Float[Array, "*n choice"]:
    """One-hot of the largest score (the first on a tie)."""
    return jax.nn.one_hot(jnp.argmax(scores, axis=-1), scores.shape[-1], dtype=scores.dtype)


def straight_through_choice(
    logits: Float[Array, "*n choice"],
    temperature: Float[ArrayLike, ""],
    legal: Float[Array, "*n choice"],
    feasibility: Float[ArrayLike, "..."] = 0.0,
) -> Float[Array, "*n choice"]:
    """The best legal alternative, one-hot, forward; backward the gradient of `soft_choice`.

    Args:
      legal: 1 where the alternative is legal now, else 0; at least one a row.
    """
    soft = soft_choice(logits, temperature, feasibility)
    return replace_gradient(hard_choice(jnp.where(legal > 0, soft, -1.0)), soft)
