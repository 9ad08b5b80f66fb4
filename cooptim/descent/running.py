"""Where running means of batch statistics come to rest, found from a few passes instead of many."""

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

MEAN_PASSES = 32  # batches whose statistics are averaged
_FAR = 1e3  # a start so much above the statistics that a running mean's share of it is not lost to rounding
_CLOSE = 1e-3  # of the largest value of a leaf: how well a pass must be foretold

Pass = Callable[[Any, int, np.ndarray], Any]  # (state, number of the pass, images) -> state
Leaves = list[Any]
FlatPass = Callable[[Leaves, int, np.ndarray], Leaves]


def at_rest(one_pass: Pass, state: Any, batches: Iterable[np.ndarray]) -> Any:
    """The state to which passes over such batches lead.

    A running mean does s' = m s + (1 - m) b in each pass, b the statistics of its batch, so that passes from s = 0 give
    b and m, and s comes to rest at the mean of b. At m = 0.99, flax's default, 200 passes still hold 13 % of where they
    began; this takes `MEAN_PASSES` and four more. A state with a leaf of floats that does anything else gets a pass for
    every batch. Leaves that are no floats (counters, keys) are as the passes leave them.

    Args:
      one_pass: a training-mode pass with everything but the state held.
      state: pytree; empty for a network without state, which comes back at once.
      batches: images [image, ...] of each pass.
    """
    leaves, form = jax.tree.flatten(state)
    if not leaves:
        return state

    def flat_pass(leaves: Leaves, step: int, x: np.ndarray) -> Leaves:
        return jax.tree.leaves(one_pass(jax.tree.unflatten(form, leaves), step, x))

    every = iter(batches)
    few = list(itertools.islice(every, MEAN_PASSES))
    found = _rest(flat_pass, leaves, few) if few else None
    if found is None:
        found = leaves
        for step, x in enumerate(itertools.chain(few, every)):
            found = flat_pass(found, step, x)
    return jax.tree.unflatten(form, found)


def _rest(one_pass: FlatPass, leaves: Leaves, few: list[np.ndarray]) -> Leaves | None:
    """Where running means rest over a few batches; None where a leaf of floats is none, or not at one rate."""
    floats = [bool(jnp.issubdtype(leaf.dtype, jnp.floating)) for leaf in leaves]
    nothing = [np.zeros(np.shape(leaf), leaf.dtype) if f else None for leaf, f in zip(leaves, floats, strict=True)]

    def with_floats(others: Leaves, values: Leaves) -> Leaves:
        return [value if f else other for f, value, other in zip(floats, values, others, strict=True)]

    first = one_pass(with_floats(leaves, nothing), 0, few[0])
    shares = _shares(one_pass, leaves, floats, first, few[0])
    if shares is None:
        return None
    before, seen = leaves, [first]
    for step, x in enumerate(few[1:], start=1):
        before = seen[-1]
        seen.append(one_pass(with_floats(before, nothing), step, x))
    found = list(seen[-1])
    for n, share in enumerate(shares):
        if floats[n]:
            mean = np.mean([np.asarray(leaves[n], np.float64) for leaves in seen], axis=0)
            found[n] = leaves[n] if share == 1.0 else jnp.asarray(mean / (1.0 - share), leaves[n].dtype)
    again = one_pass(with_floats(before, found), len(few) - 1, few[-1])  # the rates are the same in the last pass
    good = (_foretold(*each) for each in zip(shares, floats, seen[-1], found, again, strict=True))
    return found if all(good) else None


def _shares(
    one_pass: FlatPass, leaves: Leaves, floats: list[bool], from_zero: Leaves, x: np.ndarray
) -> list[float] | None:
    """For each leaf the m of a running mean, 1 where a pass leaves it alone; None if any leaf of floats is neither."""
    far = [
        np.full(np.shape(leaf), _FAR * max(float(np.max(np.abs(leaf), initial=0.0)), 1.0), leaf.dtype) if f else now
        for leaf, f, now in zip(from_zero, floats, leaves, strict=True)
    ]
    from_far, from_now = one_pass(far, 0, x), one_pass(leaves, 0, x)
    shares = [_share(*each) for each in zip(floats, from_far, from_zero, far, strict=True)]
    good = (_foretold(*each) for each in zip(shares, floats, from_zero, leaves, from_now, strict=True))
    return shares if all(good) else None


def _share(floats: bool, from_far: Any, from_zero: Any, far: Any) -> float:
    """m of one leaf, from where passes over one batch lead from far above and from nothing; NaN if it is no float."""
    if not floats or not far.size:
        return 1.0 if floats else math.nan
    each = (np.asarray(from_far, np.float64) - np.asarray(from_zero, np.float64)) / np.asarray(far, np.float64)
    m = float(np.median(each))
    return 1.0 if abs(m - 1.0) < 1e-6 else m


def _foretold(share: float, floats: bool, from_zero: Any, now: Any, from_now: Any) -> bool:
    """Whether m foretells where the pass leads from today's state; nothing moves a leaf whose m is 1."""
    if not floats:
        return True
    if share == 1.0 and np.any(np.asarray(from_zero)):
        return False
    said = share * np.asarray(now, np.float64) + np.asarray(from_zero, np.float64)
    found = np.asarray(from_now, np.float64)
    close = np.allclose(said, found, rtol=0.0, atol=_CLOSE * max(float(np.max(np.abs(found), initial=0.0)), 1e-30))
    return 0.0 <= share <= 1.0 and close
