"""How thresholds rise when a budget is broken: together, and no layer loses more than its share."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from cooptim.design.design import Design
from cooptim.network.trace import Network
from cooptim.relax.method import method_of

_MOST_RANGES = 64.0  # a threshold of so many ranges has pruned all there is
_BELOW = 1.0 - 2.0**-7  # less than the next number below, in any type that holds weights


def raised_thresholds(
    network: Network, params: Any, design: Design
) -> Callable[[float], Float[np.ndarray, "layer"]]:  # fmt: skip
    """Thresholds as a function of a scale of 1 and more.

    What rises is the magnitude up to which weights are zero: the threshold, or half a step where rounding already cuts
    more, so that no layer waits unpruned for the others to die. At scale a each layer keeps at least 1/a of its
    weights. Layers without a threshold are not pruned.
    """
    cut = np.asarray(design.threshold, np.float64)
    methods = [method_of(design.methods, row) for row in range(len(cut))]
    rounds = np.array([method.weights == "step_range" and not method.scaled for method in methods])
    half_step = np.where(rounds, 0.5 * np.asarray(design.weight_step, np.float64), 0.0)
    zero_to = np.where(cut > 0, np.maximum(cut, half_step), 0.0)
    most = _MOST_RANGES * np.asarray(design.weight_range, np.float64)
    left: dict[int, list[np.ndarray]] = {}
    leaves = jax.tree.leaves(network.harden(params, design))
    for leaf, rows, _ in network.masked_leaves:
        each = np.abs(np.asarray(leaves[leaf], np.float64)).reshape(rows.size, -1)
        for row, w in zip(rows.ravel(), each, strict=True):
            left.setdefault(int(row), []).append(w[w > zero_to[row]])
    kept = {row: np.sort(np.concatenate(parts))[::-1] for row, parts in left.items()}

    def thresholds(scale: float) -> Float[np.ndarray, "layer"]:
        found = np.minimum(scale * zero_to, most)
        for row, w in kept.items():
            if w.size:
                found[row] = min(found[row], max(_BELOW * w[int(np.ceil(w.size / scale)) - 1], zero_to[row]))
        return np.maximum(found, np.minimum(cut, most)).astype(np.asarray(design.threshold).dtype)

    return thresholds
