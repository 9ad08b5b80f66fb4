"""Lanes that skip zeros and wait for each other: the cycles that are left, differentiable in density and lanes.

Each lane works through its own words and passes over the zero ones; after a given number of words all lanes wait for
the slowest, because they share an output or the next weights.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

_INSIDE = 1e-7  # keeps the density off 0 and 1, where the logarithms of the binomial chances end


def skipped_cycles_share(
    density: Float[ArrayLike, "*#n"], lanes: Float[ArrayLike, "*#n"], words: int
) -> Float[Array, "..."]:
    """Cycles with skipping over cycles without, in [0, 1]; the density itself for one lane or endless words.

    Args:
      density: share of the words that are not skipped; zeros fall independently.
      lanes: that wait for each other. words: of a lane between two waits, zeros included.

    The mean of the largest of `lanes` binomial counts, sum over k of 1 - P(count <= k)^lanes, over `words`. A round of
    nothing but zeros takes no cycle. Within 1e-7 * lanes of exact.

    Raises ValueError when words is below 1.

    Source: order statistics; the lock-step of Cnvlutin's lanes (ISCA 2016) and of EIE's without its queues (ISCA 2016).
    """
    if words < 1:
        raise ValueError(f"zero skipping: words = {words} between two waits; legal: 1 or more")
    full = (_INSIDE + (1.0 - 2.0 * _INSIDE) * jnp.asarray(density))[..., None]
    count = np.arange(words)
    ways = [math.lgamma(words + 1) - math.lgamma(k + 1) - math.lgamma(words - k + 1) for k in range(words)]
    chance = jnp.exp(np.asarray(ways, full.dtype) + count * jnp.log(full) + (words - count) * jnp.log1p(-full))
    busy = 1.0 - jnp.cumsum(chance, axis=-1) ** jnp.asarray(lanes)[..., None]
    return jnp.mean(busy, axis=-1)
