"""Rows of a table that no other row equals or beats in every criterion.

Blocks of neighbouring rows are compared all with all first: rows next to each other in the order of enumeration are
alike and drop each other, which costs rows x block; what is left is compared with one survivor at a time.
"""

import numpy as np
from jaxtyping import Int, Num

BLOCKS = (32, 64, 256)  # sizes of blocks, one pass each
PAIRS = 1 << 21  # compared at once; 2 MB a criterion


def minimal(criteria: Num[np.ndarray, "criterion n"], most: int | None = None) -> Int[np.ndarray, "kept"]:
    """Indices, rising, of rows that are not dominated; of equal rows the first. Smaller is better.

    Args:
      most: rows that may be kept; beyond it the search stops, and one more than that many come back.
    """
    n = criteria.shape[1]
    varying = np.flatnonzero(np.any(criteria != criteria[:, :1], axis=1)) if n else np.zeros(0, dtype=int)
    if not varying.size:
        return np.arange(min(n, 1))
    left = np.arange(n)
    for block in BLOCKS:
        left = left[blockwise(criteria[np.ix_(varying, left)], block)]
        if n <= block:
            return left
    return left[_against_survivors(criteria[np.ix_(varying, left)], most)]


def blockwise(criteria: Num[np.ndarray, "criterion n"], block: int) -> Int[np.ndarray, "kept"]:
    """Indices, rising, of rows that no other row of their block of neighbours dominates."""
    n = criteria.shape[1]
    blocks = -(-n // block)
    padded = np.repeat(criteria[:, -1:], blocks * block - n, axis=1)  # copies of the last row drop themselves only
    rows = np.concatenate([criteria, padded], axis=1).reshape(len(criteria), blocks, block)
    first = np.triu(np.ones((block, block), dtype=bool), 1)
    dominated = np.empty((blocks, block), dtype=bool)
    step = max(1, PAIRS // block**2)
    for start in range(0, blocks, step):
        part = rows[:, start : start + step]
        no_more = part[0][:, :, None] <= part[0][:, None, :]
        for column in part[1:]:
            no_more &= column[:, :, None] <= column[:, None, :]
        dominated[start : start + step] = np.any(no_more & (first | ~no_more.swapaxes(1, 2)), axis=1)
    return np.flatnonzero(~dominated.reshape(-1)[:n])


def _against_survivors(criteria: Num[np.ndarray, "criterion n"], most: int | None) -> Int[np.ndarray, "kept"]:
    """The same over all rows: in the order of a sum that rises in every criterion no later row drops an earlier one."""
    scale = np.abs(criteria).max(axis=1, keepdims=True)
    order = np.argsort(np.sum(criteria / np.where(scale > 0, scale, 1.0), axis=0), kind="stable")
    table, alive = np.ascontiguousarray(criteria[:, order]), np.ones(len(order), dtype=bool)
    kept, at = [], 0
    while at < len(order):
        kept.append(order[at])
        if most is not None and len(kept) > most:
            break
        worse = at + 1 + np.flatnonzero(alive[at + 1 :] & (table[0, at + 1 :] >= table[0, at]))
        for column in table[1:]:
            worse = worse[column[worse] >= column[at]]
        alive[worse] = False
        alive[at] = False
        following = np.flatnonzero(alive[at + 1 :])
        at = at + 1 + int(following[0]) if following.size else len(order)
        if at < len(order) and following.size < 0.7 * (len(order) - at):
            order, table = order[alive], np.ascontiguousarray(table[:, alive])
            alive, at = np.ones(len(order), dtype=bool), 0
    return np.sort(np.array(kept))
