"""Weight sharing: every weight is an entry of a small table, and both the table and the choice of entry learn.

An entry of exactly 0 stays 0, so that a pruned weight stays pruned while the rest of the table moves.
Source: Han, Mao, Dally, "Deep Compression" (ICLR 2016): k-means from a linear start, entries trained with the gradient
summed over the weights that share them.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from cooptim.relax.mask import density
from cooptim.relax.rounding import replace_gradient

MOST_LABEL_BITS = 8  # the widest table has 256 entries
ENTRY_BITS = 16  # of an entry, where no machine says: fixed point, as EIE's (ISCA 2016)
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


def entry_unit(table: Float[Array, "entry"], entry_bits: int) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(step, range) of entries in so many bits: the largest magnitude, and its share that is one unit; no gradient.

    Both are 0 for a table of zeros.
    """
    most = jax.lax.stop_gradient(jnp.max(jnp.abs(table)))
    return most / (2.0 ** (max(entry_bits, 2) - 1) - 1.0), most


def fixed_point(table: Float[Array, "entry"], step: Float[Array, ""]) -> Float[Array, "entry"]:
    """The entries as whole multiples of `step` (ties to even), with the identity's gradient; none for step 0.

    An entry that is not 0 stays at least one step away from it, for at 0 it would learn no more.
    """
    units = jnp.round(table / jnp.where(step > 0, step, jnp.ones_like(step)))
    units = jnp.where(table == 0, 0.0, jnp.where(units == 0, jnp.sign(table), units))
    return replace_gradient((units * step).astype(table.dtype), table)


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


def half_least(table: Float[Array, "entry"]) -> Float[Array, ""]:
    """Half the least magnitude in the table that is not 0; 0 where there is none."""
    least = jnp.min(jnp.where(table == 0, jnp.inf, jnp.abs(table)))
    return jnp.where(jnp.isfinite(least), 0.5 * least, 0.0)


def nonzero_share(
    w: Float[Array, "*n"], table: Float[Array, "entry"], threshold: Float[ArrayLike, ""] = 0.0
) -> Float[Array, ""]:
    """Share of weights above the threshold whose nearest entry is not 0, exact.

    The gradient is that of `mask.density` at the threshold, or at half the least magnitude where that is more.
    """
    named = (shared(w, table) != 0) & (jnp.abs(w) > threshold)
    cut = jnp.maximum(threshold, jax.lax.stop_gradient(half_least(table))).astype(w.dtype)
    return replace_gradient(jnp.mean(named.astype(w.dtype)), density(w, cut))


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
