"""Which weights to prune, and pruning in rounds with training between them."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from cooptim.descent.retrain import Lesson, Masks, Teacher, Trainer, Weights, built, free_weights
from cooptim.network.trace import Network

ALLOCATIONS = ("lamp", "global", "uniform")
Sparsity = float | Mapping[str, float]  # over all layers together, or of each layer by the name of its weight


@dataclasses.dataclass(frozen=True)
class Pruned:
    """A network after one round.

    Attributes:
      sparsity: share of zeros over all prunable weights. weights: with their masks. val_accuracy: fraction.
    """

    sparsity: float
    weights: Weights
    state: Any
    val_accuracy: float


def prunable(network: Network) -> tuple[int, ...]:
    """Positions among the leaves of params of the weights that enter a multiply-accumulate as they are stored."""
    return tuple(dict.fromkeys(leaf for leaf, *_ in network.masked_leaves))


def magnitude_masks(network: Network, params: Any, sparsity: Sparsity, allocation: str = "lamp") -> Masks:
    """Masks that keep the largest weights, exactly so many.

    Args:
      sparsity: share of zeros. A number holds over all layers together, spread by `allocation`; a mapping gives each
        layer's own, by the name of its weight, and layers it leaves out stay whole.
      allocation: 'lamp', the weights with the largest share of the square of what is pruned after them in their layer;
        'global', the largest of the network; 'uniform', the same share of every layer (Han et al. 2015).

    Every layer keeps a weight. Raises ValueError for a sparsity outside [0, 1), an unknown layer or allocation.

    Source of 'lamp': Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning" (ICLR 2021).
    """
    leaves = [np.abs(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(params)]
    at = prunable(network)
    require_sparsity(network, sparsity)
    if allocation not in ALLOCATIONS:
        raise ValueError(f"pruning: allocation '{allocation}' is not known; use one of {', '.join(ALLOCATIONS)}")
    masks: list[Any] = [None] * len(leaves)
    if isinstance(sparsity, Mapping) or allocation == "uniform":
        shares = sparsity if isinstance(sparsity, Mapping) else {network.param_paths[i]: sparsity for i in at}
        for i in at:
            if network.param_paths[i] in shares:
                masks[i] = _largest(leaves[i], shares[network.param_paths[i]])
        return tuple(masks)
    scores = [(_lamp(leaves[i]) if allocation == "lamp" else leaves[i]).reshape(-1) for i in at]
    for i, score in zip(at, scores, strict=True):
        score[np.argmax(leaves[i])] = np.inf
    kept = _largest(np.concatenate(scores), float(sparsity))
    pieces = np.split(kept, np.cumsum([score.size for score in scores])[:-1])
    for i, piece in zip(at, pieces, strict=True):
        masks[i] = piece.reshape(leaves[i].shape)
    return tuple(masks)


def require_sparsity(network: Network, sparsity: Sparsity) -> None:
    """Raises ValueError for a share outside [0, 1) and for a layer that the network lacks."""
    names = [network.param_paths[i] for i in prunable(network)]
    shares = sparsity if isinstance(sparsity, Mapping) else {"all layers": sparsity}
    for name, share in shares.items():
        if isinstance(sparsity, Mapping) and name not in names:
            raise ValueError(f"pruning: layer '{name}' has no weights to prune; legal: {', '.join(names)}")
        if not 0.0 <= share < 1.0:
            raise ValueError(
                f"pruning: sparsity {share:g} of {name} is out of range; legal are 0 up to, without, 1: the share of "
                "weights that become zero"
            )


def _largest(scores: Float[np.ndarray, "*n"], sparsity: float) -> Bool[np.ndarray, "*n"]:
    """True for the highest scores but a share of them, at least one; of equals the first."""
    count = max(1, scores.size - round(sparsity * scores.size))
    kept = np.zeros(scores.size, bool)
    kept[np.argsort(-scores.reshape(-1), kind="stable")[:count]] = True
    return kept.reshape(scores.shape)


def _lamp(magnitude: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Square of each weight over the sum of squares of itself and all larger ones of its layer."""
    squares = magnitude.reshape(-1) ** 2
    order = np.argsort(-squares, kind="stable")
    scores = np.zeros_like(squares)
    sums = np.cumsum(squares[order])
    scores[order] = squares[order] / np.where(sums > 0, sums, 1.0)
    return scores.reshape(magnitude.shape)


def prune_in_rounds(
    trainer: Trainer,
    params: Any,
    state: Any,
    sparsities: Sequence[Any],
    lesson: Lesson,
    *,
    allocation: str = "lamp",
    masks_of: Callable[[Any, Any], Masks] | None = None,
    teacher: Teacher | None = None,
    least_accuracy: float = 0.0,
    progress: Any = None,
) -> list[Pruned]:
    """The network after each round of pruning and training, until one misses `least_accuracy` on validation data.

    The round that misses is part of the list. A pruned weight does not return, for it is zero.

    Args:
      sparsities: of each round, rising. lesson: of each round, its order counting up.
      masks_of: (params, what the round asks for) -> masks, in place of `magnitude_masks`; then `sparsities` are what it
        takes, such as the targets of `energy_pruning.energy_aware_masks`.

    Source: Han, Pool, Tran, Dally, "Learning both weights and connections" (NeurIPS 2015).
    """
    if masks_of is None:
        for sparsity in sparsities:
            require_sparsity(trainer.network, sparsity)
        masks_of = functools.partial(magnitude_masks, trainer.network, allocation=allocation)
    weights, found = free_weights(params), []
    for number, sparsity in enumerate(sparsities):
        weights = dataclasses.replace(weights, masks=masks_of(built(weights), sparsity))
        stretch = dataclasses.replace(lesson, name=f"{lesson.name} {number + 1}", order=lesson.order + number)
        weights, state = trainer.train(weights, state, stretch, teacher, progress)
        kept = built(weights)
        settled = trainer.settled(kept, state, SETTLE_STEPS)
        accuracy = trainer.accuracy(kept, settled, trainer.data.x_val, trainer.data.y_val)
        found.append(Pruned(zero_share(trainer.network, kept), weights, settled, accuracy))
        if accuracy < least_accuracy:
            break
    return found


SETTLE_STEPS = 100  # training-mode passes that bring batch statistics up to date


def zero_share(network: Network, params: Any) -> float:
    """Share of zeros over all prunable weights."""
    leaves = jax.tree.leaves(params)
    counts = [(int(np.count_nonzero(np.asarray(leaves[i]))), np.size(leaves[i])) for i in prunable(network)]
    return 1.0 - sum(full for full, _ in counts) / sum(size for _, size in counts)
