"""Weight sharing: every weight is an entry of a small table, and both the table and the choice of entry learn.

An entry of exactly 0 stays 0, so that a pruned weight stays pruned while the rest of the table moves.
Source: Han, Mao, Dally, "Deep Compression" (ICLR 2016): k-means from a linear start, entries trained with the gradient
summed over the weights that share them.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cooptim.relax.mask import density
from cooptim.relax.rounding import replace_gradient

MOST_LABEL_BITS = 8  # the widest table has 256 entries
_COMPARED = 32  # entries up to which comparing with all thresholds is cheaper than a binary search


def _thresholds(table: Float[Array, "entry"]) -> tuple[Float[Array, "entry"], Int[Array, "entry"], Array]:
    """(entries ascending, their places in the table, midpoints between neighbours)."""
    order = jnp.argsort(table)
    rising = table[order]
    return rising, order, 0.5 * (rising[1:] + rising[:-1])


def labels(w: Float[Array, "*n"], table: Float[Array, "entry"]) -> Int[Array, "*n"]:
    """Place in the table of the entry nearest to each weight; half-way between two, the smaller."""
    _, order, middle = _thresholds(table)
    if table.shape[0] <= _COMPARED:
        rank = jnp.sum(w[..., None] > middle, axis=-1)
    else:
        rank = jnp.searchsorted(middle, w)
    return order[rank]


@jax.custom_jvp
def shared(w: Float[Array, "*n"], table: Float[Array, "entry"]) -> Float[Array, "*n"]:
    """The entry nearest to each weight.

    Backward: the identity in w (straight-through: a weight goes on learning and may change its entry); an entry gets
    the sum of the gradients of its weights, one that is exactly 0 gets none.
    """
    return table[labels(w, table)]


@shared.defjvp
def _shared_jvp(operands, tangents):  # type: ignore[no-untyped-def]
    (w, table), (dw, dtable) = operands, tangents
    found = labels(w, table)
    return table[found], dw + jnp.where(table == 0, 0.0, dtable)[found].astype(dw.dtype)


def nonzero_share(w: Float[Array, "*n"], table: Float[Array, "entry"]) -> Float[Array, ""]:
    """Share of weights whose nearest entry is not 0, exact; gradient of `mask.density` at half the least magnitude."""
    least = jnp.min(jnp.where(table == 0, jnp.inf, jnp.abs(table)))
    counted = jnp.mean((shared(w, table) != 0).astype(w.dtype))
    half = jax.lax.stop_gradient(jnp.where(jnp.isfinite(least), 0.5 * least, 0.0)).astype(w.dtype)
    return replace_gradient(counted, density(w, half))


def linear_table(largest: float, label_bits: int) -> Float[np.ndarray, "entry"]:
    """0 and 2^label_bits - 1 values evenly from -largest to largest, a positive one more than negative ones."""
    up = 2 ** (label_bits - 1)
    positive = np.arange(1, up + 1) / up
    negative = np.arange(-(up - 1), 0) / max(up - 1, 1)
    return largest * np.concatenate([[0.0], negative, positive])


def clustered(
    values: Float[np.ndarray, "n"], entries: int, rounds: int = 100, start: Float[np.ndarray, "entry"] | None = None
) -> Float[np.ndarray, "entry"]:
    """Means of so many clusters of the values, ascending: Lloyd's k-means, exact in one dimension.

    A cluster that loses its last value keeps its place.

    Args:
      rounds: at most; it ends before when no value changes its cluster.
      start: centroids to start from; default evenly spaced from the least to the largest value.

    Source: Lloyd, IEEE Trans. Inf. Theory 28(2), 1982; the linear start is Deep Compression's, section 3.2.
    """
    sorted_values = np.sort(np.asarray(values, np.float64).reshape(-1))
    if sorted_values.size == 0 or entries < 1:
        raise ValueError(f"clusters: {sorted_values.size} values in {entries} clusters; legal are 1 or more of both")
    centres = np.linspace(sorted_values[0], sorted_values[-1], entries) if start is None else np.sort(start)
    sums = np.concatenate([[0.0], np.cumsum(sorted_values)])
    ends = None
    for _ in range(rounds):
        # Values are sorted, so a cluster is a range of them; one half-way between two goes to the smaller, as `labels`.
        cuts = np.searchsorted(sorted_values, 0.5 * (centres[1:] + centres[:-1]), side="right")
        bounds = np.concatenate([[0], cuts, [sorted_values.size]])
        if ends is not None and np.array_equal(bounds, ends):
            break
        ends, count = bounds, np.diff(bounds)
        centres = np.where(count > 0, (sums[bounds[1:]] - sums[bounds[:-1]]) / np.maximum(count, 1), centres)
    return centres


def table_of(w: Float[np.ndarray, "*n"], label_bits: int, rounds: int = 100) -> Float[np.ndarray, "entry"]:
    """Table of 2^label_bits entries for these weights; its first entry is 0 when any of them is 0.

    Raises ValueError for label bits outside 1..8, and for weights that are not finite.
    """
    if not (isinstance(label_bits, int | np.integer) and 1 <= label_bits <= MOST_LABEL_BITS):
        raise ValueError(f"codebook: {label_bits} label bits; legal are whole numbers from 1 to {MOST_LABEL_BITS}")
    flat = np.asarray(w, np.float64).reshape(-1)
    if not np.all(np.isfinite(flat)):
        raise ValueError("codebook: a weight is not finite; train with a lower rate before clustering")
    full = flat[flat != 0]
    held = int(full.size < flat.size)
    entries = 2**label_bits - held
    centres = clustered(full, entries, rounds) if full.size else np.zeros(entries)
    return np.concatenate([np.zeros(held), centres]).astype(np.float32)
