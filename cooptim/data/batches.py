"""Which images a step sees: a function of seed and step alone, so that a resumed run sees the same."""

import numpy as np
from jaxtyping import Int


def steps_per_epoch(n: int, batch: int) -> int:
    """Whole batches in n images; what is left over changes from epoch to epoch.

    Raises ValueError when a batch is empty or larger than the set.
    """
    if not 1 <= batch <= n:
        raise ValueError(f"batch of {batch} images does not fit a training set of {n}; use 1 to {n}")
    return n // batch


def batch_indices(seed: int, step: int, n: int, batch: int) -> Int[np.ndarray, "batch"]:
    """Rows of the training set that step `step` (from 0) trains on; no row twice in an epoch.

    Source of the order: one permutation an epoch, from a Philox generator seeded with (seed, epoch).
    """
    epoch, position = divmod(step, steps_per_epoch(n, batch))
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    return generator.permutation(n)[position * batch : (position + 1) * batch]
