"""A descent that prices live channels alone: those that die on its way leave the network before it lands.

While it runs the network keeps its shape, and its price is that of the network without the channels that are dead at
the thresholds of the moment (`cooptim.network.liveness`), so that the last weights of a channel are pressed by the
cycles, words and control of the whole channel. At its end the dead ones leave, and what is left is snapped, repaired
and fine-tuned like any design.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cooptim.data.augment import augmentation
from cooptim.descent.descend import Descent, best_hardware, descent_stage, landed
from cooptim.descent.finalize import Limits
from cooptim.descent.loop import Progress, run_stage
from cooptim.descent.step import TrainState, init_state, make_step
from cooptim.descent.task import Task, calibrated_knobs, decode, settled, signed_task
from cooptim.design.knobs import Phase
from cooptim.network.liveness import liveness
from cooptim.network.shrink import Shrunk, channel_counts, shrunk, without_dead
from cooptim.network.trace import Network

IMAGES = 64  # on which functions are held against each other


class LiveDescent(NamedTuple):
    """A task whose network has lost channels, or the one that came, the descent on it and what is left of channels."""

    task: Task
    descent: Descent
    channels: Mapping[str, tuple[int, int]]  # by the weights that make them, (before, after)


def live_descent(
    task: Task, params: Any, state: Any, limits: Limits, name: str, bits: int | None, progress: Progress | None = None,
    *, start_bits: float | None = None, keep: Collection[str] = (),
) -> LiveDescent:  # fmt: skip
    """As `descend`, with dead channels free of charge and gone in the end.

    Args:
      keep: as in `cooptim.network.shrink.without_dead`.

    Raises UnshrinkableError, before it descends, where the network's function does not take fewer channels.
    """
    task_live = _priced_live(task, params, state, keep)
    stage, begin = descent_stage(task, params, state, limits, name, bits, start_bits)
    end, phase, history = run_stage(task_live, stage, begin, None, progress)
    less, end, channels = _smaller(task, end, phase, limits.latency_ns, keep)
    return LiveDescent(less, landed(less, end, phase, history, limits, name, bits, None, progress), channels)


def _priced_live(task: Task, params: Any, state: Any, keep: Collection[str]) -> Task:
    """The task whose steps price live channels alone; itself where none can leave.

    Raises UnshrinkableError where the network's function does not take fewer of them.
    """
    network, x = task.network, task.data.x_train[:IMAGES]
    found = liveness(network, params, state, x[:1], keep)
    if found is None:
        return task
    counts = channel_counts(network, params, state, x[:1])
    shrunk(network, params, state, x, {name: 1 / n for name, n in counts.items() if n > 1 and name not in keep})
    step = make_step(
        task.network, task.space, augmentation(task.plan.augment, task.data.image_shape), faults=task.faults,
        temperature=task.plan.distill_temperature, channels=found,
    )  # fmt: skip
    return dataclasses.replace(task, step=step)


def _smaller(
    task: Task, end: TrainState, phase: Phase, deadline_ns: float, keep: Collection[str]
) -> tuple[Task, TrainState, Mapping[str, tuple[int, int]]]:
    """(task, state, channels) without what is dead at the end of a descent; what is pruned may still come back."""
    soft = decode(task, end.knobs, phase)
    still = settled(task, end.params, end.state, soft)
    pruned = task.network.harden(end.params, soft)
    small = without_dead(task.network, pruned, still, task.data.x_train[:IMAGES], keep=keep)
    if all(before == after for before, after in small.channels.values()):
        return task, dataclasses.replace(end, state=still), small.channels
    less = signed_task(small.network, task.machine, task.data, task.plan, task.seed, task.space.input_signed)
    less = dataclasses.replace(less, teacher=task.teacher)
    params, state = left_of(small, end.params, still)
    fresh = calibrated_knobs(less, params, state, task.plan.start_bits)
    scales = end.knobs.weight_log2_scale
    if scales is not None:
        scales = tuple(cut_factors(task.network, small, row, np.asarray(scale)) for row, scale in enumerate(scales))
    knobs = dataclasses.replace(end.knobs, tiling_logits=fresh.tiling_logits, weight_log2_scale=scales)
    begin = dataclasses.replace(
        init_state(params, state, knobs, task.seed), multipliers=end.multipliers, key=end.key
    )  # fmt: skip
    return less, dataclasses.replace(begin, knobs=best_hardware(less, begin, phase, deadline_ns)), small.channels


def left_of(small: Shrunk, params: Any, state: Any) -> Any:
    """(params, state) at the places that stay."""
    leaves, tree = jax.tree.flatten((params, state))
    for (leaf, axis), kept in small.kept.items():
        leaves[leaf] = jnp.take(leaves[leaf], kept, axis=axis)
    return jax.tree.unflatten(tree, leaves)


def cut_factors(network: Network, small: Shrunk, row: int, scale: np.ndarray) -> Any:
    """Factors of the output channels of a layer that stay."""
    for leaf, rows, site in network.masked_leaves if scale.size else ():
        if row not in rows or site.axes is None or not site.intact:
            continue
        stays = np.ones([site.axes.sizes[axis] for axis in site.axes.channels], bool)
        for place, axis in enumerate(site.axes.channels):
            kept = small.kept.get((leaf, axis))
            if kept is not None:
                gone = np.setdiff1d(np.arange(stays.shape[place]), kept)
                stays[(slice(None),) * place + (gone,)] = False
        return jnp.asarray(scale[stays.ravel()])
    return jnp.asarray(scale)
