"""A choice among a few alternatives, made differentiable."""

import jax
import jax.numpy as jnp
import numpy as np
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


def nested_choice(
    logits: Float[Array, "*n choice"], temperature: Float[ArrayLike, ""], feasible: Float[Array, "*n choice"]
) -> Float[Array, "*n choice"]:
    """Expected choice where feasibility is uncertain and nested: an alternative implies all that follow it.

    With probability feasible[k] - feasible[k-1] the alternatives from k on may be taken, and among those a softmax of
    logits/temperature decides; the mixture sums to 1. Feasibility keeps its own softness: put into the logits it would
    be sharpened with them and shift the steps to where the preference equals it, bits away from the true ones.

    Args:
      feasible: probability of each alternative, non-decreasing along the axis and 1 at its end.
    """
    first = jnp.diff(feasible, axis=-1, prepend=jnp.zeros_like(feasible[..., :1]))
    rest = np.triu(np.ones((logits.shape[-1],) * 2, bool))  # [first feasible, choice]
    scores = jnp.where(rest, (logits / temperature)[..., None, :], -jnp.inf)
    return jnp.sum(first[..., :, None] * jax.nn.softmax(scores, axis=-1), axis=-2)


def straight_through_nested_choice(
    logits: Float[Array, "*n choice"],
    temperature: Float[ArrayLike, ""],
    legal: Float[Array, "*n choice"],
    feasible: Float[Array, "*n choice"],
) -> Float[Array, "*n choice"]:
    """The legal alternative of largest logit, one-hot, forward; backward the gradient of `nested_choice`.

    Args:
      legal: 1 where the alternative is legal now, else 0; at least one a row.
    """
    hard = hard_choice(jnp.where(legal > 0, logits, -jnp.inf))
    return replace_gradient(hard, nested_choice(logits, temperature, feasible))
