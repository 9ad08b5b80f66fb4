"""Load imbalance: how much longer lanes take that share out the rows of a sparse matrix than if all had the same.

Lane k of N holds the rows k, k + N, ... of each column; non-zeros fall independently. A column that is not skipped goes
to all lanes at once and takes a lane one cycle for each entry that it stores there, and at least one.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

_INSIDE = 1e-7  # keeps the density off 0 and 1, where the logarithms of the binomial chances end
_NOTHING = 1e-12  # far below any loss that counts, so that 0 of 0 has a value and a slope
_NEVER = -1e30  # logarithm of no chance


def chances(
    density: Float[ArrayLike, "*#n"], words: Int[np.ndarray, "*#n"], counts: Int[np.ndarray, "count"]
) -> Float[Array, "... count"]:
    """Binomial chances of each count of non-zeros among so many words; 0 for counts beyond them."""
    sizes = np.asarray(words)[..., None]
    full = (_INSIDE + (1.0 - 2.0 * _INSIDE) * jnp.asarray(density))[..., None]
    left = np.maximum(sizes - counts, 0)
    factorials = np.array([math.lgamma(k + 1) for k in range(max(sizes.max(), counts.max()) + 1)])
    ways = np.where(sizes >= counts, factorials[sizes] - factorials[counts] - factorials[left], _NEVER)
    return jnp.exp(np.asarray(ways, full.dtype) + counts * jnp.log(full) + left * jnp.log1p(-full))


def stored_entries(
    density: Float[ArrayLike, "*#n"], rows: int | Int[np.ndarray, "*#n"], run_bits: int
) -> Float[Array, "..."]:
    """Mean entries of a column of `rows` words in a lane: non-zeros, and a filler for each 2^run_bits zeros before one.

    The zeros behind the last non-zero are not stored. run_bits 0: no runs are counted and nothing is filled. Exact.

    Source: a non-zero r words behind the column's start needs its j-th filler when the 2^run_bits * j words before it
    are zero, at the chance (1 - d)^(2^run_bits * j); EIE (ISCA 2016) stores columns so, with 4 bits.
    """
    full, sizes = jnp.asarray(density), np.asarray(rows)
    found = full * sizes
    if run_bits:
        span = 2**run_bits
        for j in range(1, int((sizes.max() - 1) // span) + 1):
            found = found + full * (1.0 - full) ** (span * j) * np.maximum(sizes - span * j, 0)
    return found


def queued_cycles(
    share: Float[ArrayLike, "*#n"],
    lanes: Float[ArrayLike, "*#n"],
    rows: int | Int[np.ndarray, "*#n"],
    queue: Float[ArrayLike, "*#n"],
) -> Float[Array, "..."]:
    """Mean cycles a column of lanes that each have a queue of columns, the one they work on included.

    Args:
      share: of a lane's words of a column that take a cycle. rows: words of a column in a lane; static.
      queue: columns in the queue, 1 or more; a column enters all queues at once, when none is full.

    With one place all lanes wait for the slowest at each column: exact. With q places the fastest lane is up to q
    columns ahead; idle time over busy time then falls as c^2 log2(N) / 2q for long queues, c being the deviation of a
    column's cycles over their mean: exact for two lanes (two random walks within a distance of q columns of each
    other), empirical for more. Between the two ends their harmonic mean. Against simulation of 4 to 1,024 lanes (the
    tests hold it): idle time within 20 % for queues of 8 and 16; at 2 places up to 80 % too low where a column has few
    entries, cycles up to 20 %.

    Raises ValueError when rows is below 1.
    """
    sizes = np.asarray(rows)
    if sizes.min() < 1:
        raise ValueError(f"queued lanes: rows = {sizes.min()} of a column in a lane; legal: 1 or more")
    count = np.arange(sizes.max() + 1)
    chance = chances(jnp.asarray(share, jnp.result_type(float)), sizes, count)
    cycles = np.maximum(count, 1)
    mean = jnp.sum(chance * cycles, axis=-1)
    variance = jnp.sum(chance * (cycles - mean[..., None]) ** 2, axis=-1)
    below = jnp.cumsum(chance, axis=-1)[..., :-1]
    many = jnp.asarray(lanes, mean.dtype)
    slowest = 1.0 + jnp.sum(1.0 - jnp.minimum(below[..., 1:], 1.0) ** many[..., None], axis=-1)
    lock_step = jnp.maximum(slowest / mean - 1.0, 0.0) + _NOTHING  # idle over busy time, one place
    long_queue = variance / mean**2 * jnp.log2(many) / 2.0 + _NOTHING  # times the places
    return mean * (1.0 + 1.0 / (1.0 / lock_step + (jnp.asarray(queue) - 1.0) / long_queue))
