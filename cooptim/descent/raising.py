"""How pruning thresholds rise when a budget is broken: every layer gives the same share of its weights."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from cooptim.design.design import Design
from cooptim.network.plan import Site
from cooptim.network.trace import Network
from cooptim.relax.codebook import shared
from cooptim.relax.method import method_of, spread

_ROUNDED = ("step_range", "lsq")  # methods that round to multiples of a step
_BELOW = 1.0 - 2.0**-7  # less than the next number below, in any type that holds weights


def raised_thresholds(
    network: Network, params: Any, design: Design
) -> Callable[[float], Float[np.ndarray, "layer"]]:  # fmt: skip
    """Thresholds as a function of the share of its weights that each layer keeps, its largest; at least one.

    Weights that are zero already, by threshold or by rounding, do not count. Layers without a threshold keep all.
    Thresholds raised by one factor would take nothing from a layer whose weights lie far above its threshold until
    others had lost all of theirs.
    """
    cut = np.asarray(design.threshold, np.float64)
    methods = [method_of(design.methods, row) for row in range(len(cut))]

    def named(row: int, w: np.ndarray) -> np.ndarray:
        """Where the nearest value of the layer's table, if it has one, is not 0."""
        if not methods[row].entries or design.codebook is None:
            return np.ones(w.shape, bool)
        table = jnp.asarray(design.codebook[row])
        return np.asarray(shared(jnp.asarray(w, table.dtype), table)) != 0

    left: dict[int, list[np.ndarray]] = {}
    leaves = jax.tree.leaves(network.harden(params, design))
    for leaf, rows, site in network.masked_leaves:
        values = np.asarray(leaves[leaf], np.float64)
        each = values.reshape(rows.size, *values.shape[rows.ndim :])
        for row, w in zip(rows.ravel().tolist(), each, strict=True):
            if cut[row] > 0:
                zero_to = np.maximum(cut[row], _rounded_to_zero(design, row, site, w.shape))
                left.setdefault(row, []).append(np.abs(w[named(row, w) & (np.abs(w) > zero_to)]))
    kept = {row: np.sort(np.concatenate(parts))[::-1] for row, parts in left.items()}

    def thresholds(share: float) -> Float[np.ndarray, "layer"]:
        found = cut.copy()
        for row, w in kept.items():
            keep = max(int(np.ceil(share * w.size)), 1)
            if keep < w.size:  # the largest that goes, so that weights that lie close together part
                found[row] = max(cut[row], w[keep] if w[keep] < w[0] else _BELOW * w[0])
        return found.astype(np.asarray(design.threshold).dtype)

    return thresholds


def _rounded_to_zero(design: Design, row: int, site: Site, shape: tuple[int, ...]) -> Any:
    """Largest magnitudes that rounding makes zero, half a step of their channel; 0 where that cannot be told."""
    method, step = method_of(design.methods, row), np.asarray(design.weight_step, np.float64)[row]
    if method.weights not in _ROUNDED:
        return 0.0
    if not method.scaled:
        return 0.5 * step
    if design.weight_scale is None or site.axes is None or not site.intact:
        return 0.0
    scale = jnp.asarray(design.weight_scale[row])
    return 0.5 * step * np.asarray(spread(scale, shape, site.axes.channels), np.float64)
