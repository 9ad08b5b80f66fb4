"""Energy-aware pruning: weights go first where they save most energy for the error that they leave.

Source: Yang, Chen, Sze, "Designing energy-efficient convolutional neural networks using energy-aware pruning" (CVPR
2017): layers are taken by their energy and not by their number of weights, and weights by the error of the layer's
output. Here both are weighed against each other at every step, and the energy is that of `evaluate`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from cooptim.compile import compiled
from cooptim.cost.evaluate import evaluate
from cooptim.cost.report import CostReport
from cooptim.descent.pruning import prunable
from cooptim.descent.retrain import Masks
from cooptim.design.design import Design
from cooptim.hardware.machine import Machine
from cooptim.mapping.tilings import Tilings
from cooptim.network.stats import Stats
from cooptim.network.trace import Network

Price = Callable[[Float[np.ndarray, "layer"]], float]  # share of non-zero weights of each layer -> energy [pJ]
_STEP = 0.1  # share of a layer's remaining weights that one step takes
_LEAST = 0.01  # share of weights that a layer keeps at least


def price_of(network: Network, machine: Machine, design: Design, stats: Stats, tilings: Tilings | None = None) -> Price:
    """Energy of an inference under a design as a function of the weights' densities alone [pJ].

    Args:
      stats: of the network before pruning; its weights' densities are the most there can be, all else is held.
    """

    def price(density):  # type: ignore[no-untyped-def]
        left = jnp.minimum(density, jnp.asarray(stats.weight_density))
        seen = dataclasses.replace(stats, weight_density=left)
        return evaluate(network.workload, machine, design, seen, tilings=tilings).total_energy_pj

    program = compiled(price)
    return lambda density: float(program(jnp.asarray(density, jnp.asarray(stats.weight_density).dtype)))


def layers_by_energy(network: Network, report: CostReport) -> tuple[str, ...]:
    """Names of the layers, the one that takes most energy first."""
    order = np.argsort(-np.asarray(report.layer_energy_pj), kind="stable")
    return tuple(network.layer_names[i] for i in order)


def energy_aware_masks(network: Network, price: Price, params: Any, target_pj: float) -> Masks:
    """Masks that bring the energy down to `target_pj` at the least error of the layers' outputs.

    Each step takes a tenth of the remaining weights of the layer where energy saved over error added is largest; the
    error is the share of the squares of its weights that is gone, which is that of its output where inputs are alike
    and independent. Every layer keeps a hundredth of its weights.

    Raises ValueError where the target is below what pruning reaches, and where pruning saves nothing on this machine.
    """
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(params)]
    at = prunable(network)
    rows = _layer_rows(network)
    order = {i: np.argsort(np.abs(leaves[i]).reshape(-1), kind="stable") for i in at}  # the least first
    power = {i: np.concatenate([[0.0], np.cumsum(leaves[i].reshape(-1)[order[i]] ** 2)]) for i in at}
    # A weight that is zero is gone whatever the step.
    gone = {i: int(np.count_nonzero(leaves[i] == 0)) for i in at}
    density = np.ones(len(network.layer_names))
    for i in at:
        density[rows[i]] = 1.0 - gone[i] / leaves[i].size
    energy_pj = price(density)
    while energy_pj > target_pj:
        best: tuple[float, int, int, float] | None = None
        for i in at:
            size = leaves[i].size
            further = min(gone[i] + max(1, round(_STEP * (size - gone[i]))), size - max(1, round(_LEAST * size)))
            if further <= gone[i]:
                continue
            tried = density.copy()
            tried[rows[i]] = 1.0 - further / size
            after_pj = price(tried)
            error = (power[i][further] - power[i][gone[i]]) / max(power[i][-1], np.finfo(float).tiny)
            gain = (energy_pj - after_pj) / max(error, np.finfo(float).tiny)
            if after_pj < energy_pj and (best is None or gain > best[0]):
                best = gain, i, further, after_pj
        if best is None:
            raise ValueError(
                f"energy-aware pruning of {network.workload.name}: {target_pj:g} pJ is out of reach, pruned weights "
                f"bring it to {energy_pj:g} pJ; ask for more, or use a machine that skips, guards or codes zeros"
            )
        _, i, gone[i], energy_pj = best
        density[rows[i]] = 1.0 - gone[i] / leaves[i].size
    masks: list[Any] = [None] * len(leaves)
    for i in at:
        kept = np.ones(leaves[i].size, bool)
        kept[order[i][: gone[i]]] = False
        masks[i] = kept.reshape(leaves[i].shape)
    return tuple(masks)


def _layer_rows(network: Network) -> dict[int, np.ndarray]:
    """Rows on the layer axis of the layers that each prunable leaf serves."""
    found: dict[int, list[np.ndarray]] = {}
    for leaf, rows, *_ in network.masked_leaves:
        found.setdefault(leaf, []).append(np.ravel(rows))
    return {leaf: np.unique(np.concatenate(parts)) for leaf, parts in found.items()}
